"""Corpus and frozen model to a query pack.

The documents are encoded into shards on the way, because distillation needs their vectors and so
does the index: ``steelyard index`` finds the same shards again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from steelyard.encoders.distillation.recipe import distil
from steelyard.encoders.distillation.settings import DistillationSettings
from steelyard.encoders.documents.bm25 import KIND as BM25
from steelyard.encoders.documents.bm25 import Bm25Encoder, CorpusStatistics, count_corpus
from steelyard.encoders.documents.paired import PairedEncoder
from steelyard.encoders.documents.sentence_transformers import SentenceTransformersEncoder
from steelyard.encoders.pack.files import refuse_taken, write_pack
from steelyard.encoders.pack.metadata import DenseArm, PackMetadata, SparseArm
from steelyard.encoders.pack.query_tokenizer import QueryTokenizer, query_tokenizer
from steelyard.encoders.pack.spaces import vocabulary_hash
from steelyard.encoders.query.tables import table_tensors
from steelyard.encoders.query.tokenizer import PackTokenizer
from steelyard.indexer.encode import encode_corpus, plan_encoding
from steelyard.indexer.manifest import Manifest
from steelyard.indexer.places import shards_folder
from steelyard.indexer.readers import CorpusFile
from steelyard.indexer.shards import read_shard
from steelyard.indexer.validation import ReadDocument, validate
from steelyard.progress import Progress
from steelyard.types import DenseVectors, Document

DEFAULT_TABLE = "default"
QUERY_MAX_TOKENS = 512
IMPACT_SCALE = 100.0


@dataclass(frozen=True, slots=True)
class DistillationJob:
    """What to distil and how.

    Attributes:
        model: of the frozen document encoder; see ``locate_model``.
        revision: hub revision.
        settings: the recipe.
        k1, b: of BM25.
        lowercase: lower-case queries and BM25's terms if the model does not.
        dtype: of the table: float32, float16 or int8.
        precision: of the document encoder.
        sample_documents: most documents that the table is learned on.
        name: of the pack; empty takes the model's.
        licence: of the pack, for its card.
    """

    model: str
    revision: str | None = None
    settings: DistillationSettings = field(default_factory=DistillationSettings)
    k1: float = 1.2
    b: float = 0.75
    lowercase: bool = True
    dtype: str = "float32"
    precision: str = "auto"
    sample_documents: int = 100_000
    name: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True)
class DistilledPack:
    """What the job made: the pack's metadata, and the encoded documents on the way."""

    metadata: PackMetadata
    manifest: Manifest
    shards: Path


def distil_pack(
    corpus: CorpusFile,
    job: DistillationJob,
    out: Path,
    progress: Progress,
    *,
    shards: Path | None = None,
    overwrite: bool = False,
) -> DistilledPack:
    """Make a query pack for a frozen model on a corpus.

    Args:
        corpus: whose text the table is learned on and whose idf the pack carries.
        job: what and how.
        out: the pack's folder.
        progress: shows the stages.
        shards: where the encoded documents go; None is the cache.
        overwrite: replace a pack that is there.

    Raises:
        InputError: the corpus, the model or a setting cannot be used.
    """
    refuse_taken(out, overwrite)
    with progress.stage("open the model"):
        teacher = SentenceTransformersEncoder(
            job.model, revision=job.revision, precision=job.precision
        )
    tokenizer = query_tokenizer(teacher.tokenizer_json(), lowercase=job.lowercase)
    tokens = PackTokenizer(
        Tokenizer.from_str(tokenizer.text), tokenizer.rows, ignored_ids=tokenizer.special_ids
    )
    with progress.stage("count terms"):
        texts = (read.document.content for read in _documents(corpus))
        statistics = count_corpus(texts, tokens, tokenizer.rows)
    metadata = _metadata(job, teacher, tokenizer, statistics)
    plan = plan_encoding(
        corpus,
        dense_space=metadata.dense_space.id,
        sparse_space=metadata.sparse_space.id,
        vocabulary_size=tokenizer.rows,
        dims=teacher.dims,
        precision=teacher.precision,
    )
    folder = shards or shards_folder(plan)
    avgdl = metadata.sparse.avgdl or statistics.avgdl
    bm25 = Bm25Encoder(tokens, tokenizer.rows, avgdl=avgdl, k1=job.k1, b=job.b)
    manifest = encode_corpus(corpus, plan, lambda: PairedEncoder(teacher, bm25), folder, progress)
    documents, vectors = _sample(manifest, folder, job)
    table = distil(documents, vectors, teacher, tokens, tokenizer.rows, job.settings, progress)
    provenance = {
        "corpus": {
            "name": corpus.path.name,
            "sha256": plan.corpus_sha256,
            "documents": manifest.encoded,
            "sampled": len(documents),
        },
        "recipe": table.recipe,
        "held_out": table.held_out.to_dict(),
        "document_precision": teacher.precision,
    }
    sealed = write_pack(
        out,
        replace(metadata, provenance=provenance),
        tokenizer.text,
        table_tensors(table.rows, job.dtype, DEFAULT_TABLE),
        statistics.idf(),
        overwrite=overwrite,
    )
    return DistilledPack(sealed, manifest, folder)


def _documents(corpus: CorpusFile) -> Iterator[ReadDocument]:
    return (read for read in validate(corpus.lines()) if isinstance(read, ReadDocument))


def _metadata(
    job: DistillationJob,
    teacher: SentenceTransformersEncoder,
    tokenizer: QueryTokenizer,
    statistics: CorpusStatistics,
) -> PackMetadata:
    return PackMetadata(
        name=job.name or f"{Path(job.model).name}-lookup",
        vocabulary=vocabulary_hash(tokenizer.text),
        document_encoder=teacher.spec,
        dense=DenseArm(
            dims=teacher.dims,
            rows=tokenizer.rows,
            dtype=job.dtype,
            tables={DEFAULT_TABLE: ""},
            default_table=DEFAULT_TABLE,
            text_prefix="",
            query_max_tokens=QUERY_MAX_TOKENS,
            ignored_ids=tokenizer.special_ids,
        ),
        sparse=SparseArm(
            kind=BM25,
            scale=IMPACT_SCALE,
            text_prefix="",
            query_max_tokens=QUERY_MAX_TOKENS,
            max_terms=None,
            ignored_ids=tokenizer.special_ids,
            k1=job.k1,
            b=job.b,
            avgdl=round(statistics.avgdl, 6),
            documents=statistics.documents,
        ),
        licence=job.licence,
    )


def _sample(
    manifest: Manifest, folder: Path, job: DistillationJob
) -> tuple[list[Document], DenseVectors]:
    """The documents the table is learned on: all, or as many as ``sample_documents``."""
    chosen = np.arange(manifest.encoded)
    if manifest.encoded > job.sample_documents:
        rng = np.random.default_rng(job.settings.seed)
        chosen = np.sort(rng.choice(chosen, job.sample_documents, replace=False))
    documents: list[Document] = []
    vectors: list[DenseVectors] = []
    first = 0
    for entry in manifest.shards:
        content = read_shard(folder / entry.name)
        inside = chosen[(chosen >= first) & (chosen < first + entry.documents)] - first
        documents.extend(content.documents[i] for i in inside.tolist())
        vectors.append(content.dense[inside])
        first += entry.documents
    return documents, np.concatenate(vectors)
