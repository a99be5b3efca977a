"""A pack whose query table is refined on a corpus, by look-up distillation.

LightRetriever's rows are made under one instruction and for no corpus (papers, section 1). The
corpus's own text teaches them the rest: how the full model's vector of a whole query differs
from the mean of its tokens' rows. Documents' vectors stay as they are, so the refined pack serves
the index of the pack that it started from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from steelyard.config import cache_dir
from steelyard.encoders.causal import tower as causal
from steelyard.encoders.distillation.recipe import RefinedTable, refine
from steelyard.encoders.distillation.settings import DistillationSettings
from steelyard.encoders.documents import table as table_encoder
from steelyard.encoders.documents.from_pack import open_dense_encoder, open_sparse_encoder
from steelyard.encoders.documents.paired import PairedEncoder
from steelyard.encoders.documents.protocol import DocumentEncoder, FullModel
from steelyard.encoders.pack.files import PackContents, read_pack, refuse_taken, write_pack
from steelyard.encoders.pack.metadata import LM_HEAD, PackMetadata
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.encoders.query.tables import table_tensors
from steelyard.errors import InputError
from steelyard.indexer.build import EncodeSettings, plan_of, splitter_of
from steelyard.indexer.encoding.encode import encode_corpus
from steelyard.indexer.encoding.manifest import Manifest
from steelyard.indexer.encoding.places import shards_folder
from steelyard.indexer.encoding.sample import sample_documents
from steelyard.indexer.reading.corpus import Corpus
from steelyard.progress import Progress

REFINED_SUFFIX = "-refined"


@dataclass(frozen=True, slots=True)
class RefinementJob:
    """What to refine and how.

    Attributes:
        instruction: name of the table; None is the pack's default.
        settings: the recipe; ``start`` takes no part.
        encoding: how the documents are encoded, where they are not yet.
        sample_documents: most documents that the table is learned on.
        name: of the new pack; empty adds ``-refined`` to the old one's.
        work: where the pseudo-queries' vectors are kept; None is the cache.
    """

    instruction: str | None = None
    settings: DistillationSettings = field(default_factory=DistillationSettings)
    encoding: EncodeSettings = field(default_factory=EncodeSettings)
    sample_documents: int = 100_000
    name: str = ""
    work: Path | None = None

    def __post_init__(self) -> None:
        """Refuse settings now rather than after hours of work."""
        if self.settings.seed < 0:
            raise InputError(f"seed {self.settings.seed}", "a seed is 0 or more")


@dataclass(frozen=True, slots=True)
class RefinedPack:
    """What the job made.

    Attributes:
        metadata: of the new pack.
        table: the refined table, and what it and its start keep of the full model.
        manifest, shards: of the encoded documents.
    """

    metadata: PackMetadata
    table: RefinedTable
    manifest: Manifest
    shards: Path


def refine_pack(
    corpus: Corpus,
    pack: Path,
    job: RefinementJob,
    out: Path,
    progress: Progress,
    *,
    overwrite: bool = False,
) -> RefinedPack:
    """Refine one table of a pack on a corpus; all else of the pack stays as it is.

    Documents are encoded into shards, or found there; a job that was stopped goes on.

    Args:
        corpus: whose text teaches.
        pack: where the table, the tokenizer and the sparse arm come from.
        job: what and how.
        out: the new pack's folder.
        progress: shows the stages.
        overwrite: replace a pack that is there.

    Raises:
        InputError: the corpus, the pack or a setting cannot be used.
        PackMismatchError: the model found is not the one the pack was made for.
    """
    refuse_taken(out, overwrite)
    if out.resolve() == pack.resolve():
        raise InputError(f"{out} is the pack to refine", "give --out another folder")
    contents = read_pack(pack)
    queries = QueryEncoder(contents, str(pack))
    metadata, encoding = contents.metadata, job.encoding
    name = _instruction(metadata, job.instruction)
    if metadata.document_encoder.kind == table_encoder.KIND:
        raise InputError(
            f"{pack}: its documents are encoded by the table itself: there is no full model to "
            "learn from",
            "give a pack of 'steelyard pack build' or 'steelyard pack distill'",
        )
    tower = cache(lambda: _open(metadata, name, encoding, progress))
    plan = plan_of(corpus, queries, encoding)
    shards = encoding.shards or shards_folder(plan)
    manifest = encode_corpus(
        corpus,
        plan,
        lambda: _both_arms(queries, tower),
        shards,
        progress,
        max_rejected=encoding.max_rejected,
        split=splitter_of(queries, encoding),
    )
    documents, vectors = sample_documents(
        manifest, shards, job.sample_documents, job.settings.seed
    )
    table = refine(
        queries.tables[name].gather(np.arange(metadata.dense.rows)),
        documents,
        vectors,
        tower(),
        queries.dense_tokens,
        job.settings,
        progress,
        job.work or cache_dir() / "pseudo-queries",
    )
    made = {
        "corpus": {
            "name": corpus.name,
            "sha256": manifest.plan.corpus_sha256,
            "documents": manifest.encoded,
            "sampled": len(documents),
        },
        "precision": tower().precision,
        "refined_from": metadata.pack_id,
        "recipe": table.recipe,
        "held_out": table.held_out.to_dict(),
        "held_out_before": table.before.to_dict(),
    }
    return RefinedPack(
        _write(out, contents, name, table, made, job, overwrite=overwrite), table, manifest, shards
    )


def _instruction(metadata: PackMetadata, wanted: str | None) -> str:
    name = metadata.dense.default_table if wanted is None else wanted
    if name not in metadata.dense.tables:
        known = ", ".join(sorted(metadata.dense.tables))
        raise InputError(f"the pack has no instruction {name!r}", f"known: {known}")
    return name


def _open(
    metadata: PackMetadata, name: str, encoding: EncodeSettings, progress: Progress
) -> FullModel:
    """The full model, with the prompt of the table's own instruction."""
    spec = metadata.document_encoder
    if spec.kind == causal.KIND:
        prompts = {**spec.prompts, "query": metadata.dense.tables[name]}
        metadata = replace(metadata, document_encoder=replace(spec, prompts=prompts))
    with progress.stage("open the model"):
        return open_dense_encoder(
            metadata,
            model=encoding.model,
            adapter=encoding.adapter,
            precision=encoding.precision,
            device=encoding.device,
            say=progress.say,
        )


def _both_arms(queries: QueryEncoder, tower: Callable[[], FullModel]) -> DocumentEncoder:
    if queries.metadata.sparse.kind == LM_HEAD:
        return tower()
    return PairedEncoder(tower(), open_sparse_encoder(queries))


def _write(
    out: Path,
    contents: PackContents,
    name: str,
    table: RefinedTable,
    made: dict[str, Any],
    job: RefinementJob,
    *,
    overwrite: bool,
) -> PackMetadata:
    """The pack with one table in another's place."""
    metadata = contents.metadata
    tensors = {key: np.asarray(tensor) for key, tensor in contents.tables.items()}
    tensors.update(table_tensors(table.rows, metadata.dense.dtype, name))
    earlier = metadata.provenance.get("refined", {})
    return write_pack(
        out,
        replace(
            metadata,
            name=job.name or metadata.name.removesuffix(REFINED_SUFFIX) + REFINED_SUFFIX,
            provenance={**metadata.provenance, "refined": {**earlier, name: made}},
        ),
        contents.tokenizer_json,
        tensors,
        np.asarray(contents.query_weights),
        overwrite=overwrite,
    )
