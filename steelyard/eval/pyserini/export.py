"""A folder with everything a Pyserini user needs to make our run with Pyserini's commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from steelyard.encoders.folder_swap import new_folder, refuse_taken
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import InputError
from steelyard.eval.collection import JudgedQueries
from steelyard.eval.pyserini.collection import FILE_BYTES, VectorCollection
from steelyard.eval.pyserini.faiss_folder import FaissFolder
from steelyard.eval.pyserini.ids import check_ids
from steelyard.eval.pyserini.queries import WrittenQueries, write_queries
from steelyard.eval.pyserini.query_encoders import QUERY_SCALE
from steelyard.eval.pyserini.readme import readme
from steelyard.eval.pyserini.source import Source
from steelyard.plugin.engine import DENSE, SPARSE, VECTOR_ARMS
from steelyard.progress import Progress

MARKER = "export.json"
COLLECTION, FAISS, QUERIES = "collection", "faiss", "queries"


@dataclass(frozen=True, slots=True)
class PyseriniExport:
    """What an export holds; the contents of ``export.json``.

    Attributes:
        source: the shards or the generation.
        pack_id, dense_space, sparse_space: of the pack.
        documents: exported.
        empty: those without a term, which Anserini leaves out.
        lucene_documents: what Anserini's index will count, documents - empty.
        postings: terms of all documents.
        files: of the collection.
        faiss_documents: what the FAISS index holds.
        arms: what was exported.
        document_scale, query_scale: a score of Lucene's is theirs x ours.
        queries: their counts; None where none were exported.
    """

    source: str
    pack_id: str
    dense_space: str
    sparse_space: str
    documents: int
    empty: int
    lucene_documents: int
    postings: int
    files: int
    faiss_documents: int
    arms: tuple[str, ...]
    document_scale: float
    query_scale: int
    queries: WrittenQueries | None
    format: int = 1


def export_pyserini(
    source: Source,
    pack: QueryEncoder,
    out: Path,
    progress: Progress,
    *,
    judged: JudgedQueries | None = None,
    arms: Sequence[str] | None = None,
    query_scale: int = QUERY_SCALE,
    file_bytes: int = FILE_BYTES,
    overwrite: bool = False,
) -> PyseriniExport:
    """Write the folder; it is there whole or not at all.

    Args:
        source: the documents.
        pack: of their spaces.
        out: where to.
        progress: shows the documents.
        judged: queries and judgements to go with them.
        arms: of dense and sparse; None: all that the source has.
        query_scale: of the sparse query weights.
        file_bytes: of the collection's files, about.
        overwrite: replace an older export.

    Raises:
        InputError: the place is taken, an id does not fit, or an arm is not there.
        MissingExtraError: faiss or pandas is not installed, for the dense arm.
    """
    refuse_taken(out, MARKER, "an export for Pyserini", overwrite)
    chosen = _arms(source, arms)
    flat = FaissFolder(source.dims) if DENSE in chosen else None
    documents = 0
    with new_folder(out) as folder:
        collection = VectorCollection(folder / COLLECTION, file_bytes)
        with collection, progress.stage("export documents") as advance:
            for part in source.parts:
                check_ids([document.id for document in part.documents], "document")
                if SPARSE in chosen:
                    collection.add(part)
                if flat is not None:
                    flat.add(part)
                documents += len(part)
                advance(len(part))
        if SPARSE not in chosen:
            (folder / COLLECTION).rmdir()
        if flat is not None:
            flat.save(folder / FAISS)
        queries = None
        if judged is not None:
            queries = write_queries(folder / QUERIES, judged, pack, chosen, query_scale)
        made = PyseriniExport(
            source=source.name,
            pack_id=pack.metadata.pack_id,
            dense_space=pack.metadata.spaces.dense,
            sparse_space=pack.metadata.spaces.sparse,
            documents=documents,
            empty=collection.empty,
            lucene_documents=collection.documents - collection.empty,
            postings=collection.postings,
            files=collection.files,
            faiss_documents=len(flat) if flat is not None else 0,
            arms=chosen,
            document_scale=pack.metadata.sparse.scale,
            query_scale=query_scale,
            queries=queries,
        )
        (folder / MARKER).write_text(json.dumps(asdict(made), indent=2) + "\n", "utf-8")
        fusion = pack.metadata.fusion
        (folder / "README.md").write_text(readme(made, fusion), encoding="utf-8")
    return made


def _arms(source: Source, wanted: Sequence[str] | None) -> tuple[str, ...]:
    arms = tuple(arm for arm in VECTOR_ARMS if arm in (wanted or source.arms))
    unknown = [arm for arm in wanted or () if arm not in VECTOR_ARMS]
    absent = [arm for arm in arms if arm not in source.arms]
    if unknown or absent or not arms:
        raise InputError(
            f"{source.name} has no arm {', '.join(unknown or absent) or 'at all'}",
            f"it has {', '.join(source.arms) or 'none'}",
        )
    return arms
