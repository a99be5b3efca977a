"""Corpus and frozen model to a query pack.

The documents are encoded into shards on the way, because distillation needs their vectors and so
does the index: ``steelyard index`` finds the same shards again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from steelyard.encoders.distillation.recipe import distill
from steelyard.encoders.distillation.settings import DistillationSettings
from steelyard.encoders.documents.bm25 import (
    Bm25Encoder,
    CorpusStatistics,
    check_settings,
    count_corpus,
)
from steelyard.encoders.documents.open_teacher import open_teacher
from steelyard.encoders.documents.paired import PairedEncoder
from steelyard.encoders.documents.protocol import Teacher
from steelyard.encoders.documents.sentence_transformers import native_precision
from steelyard.encoders.pack.files import refuse_taken, write_pack
from steelyard.encoders.pack.metadata import (
    BM25,
    DEFAULT_TABLE,
    IMPACT_SCALE,
    QUERY_MAX_TOKENS,
    DenseArm,
    PackMetadata,
    SparseArm,
)
from steelyard.encoders.pack.query_tokenizer import QueryTokenizer, query_tokenizer
from steelyard.encoders.pack.spaces import vocabulary_hash
from steelyard.encoders.query.tables import check_dtype, table_tensors
from steelyard.encoders.query.tokenizer import PackTokenizer, load_tokenizer
from steelyard.errors import InputError
from steelyard.indexer.encoding.encode import encode_corpus, plan_encoding
from steelyard.indexer.encoding.manifest import REJECTED, Manifest
from steelyard.indexer.encoding.places import shards_folder
from steelyard.indexer.encoding.sample import sample_documents
from steelyard.indexer.reading.corpus import Corpus
from steelyard.indexer.reading.documents import documents_of
from steelyard.indexer.reading.validation import Rejection
from steelyard.progress import Progress
from steelyard.types import DenseVectors, Document


@dataclass(frozen=True, slots=True)
class DistillationJob:
    """What to distill and how.

    Attributes:
        model: of the frozen document encoder; see ``locate_model``.
        revision: hub revision.
        settings: the recipe.
        k1, b: of BM25.
        lowercase: lower-case queries and BM25's terms if the model does not.
        dtype: of the table: float32, float16 or int8.
        precision: of the document encoder.
        query_prompt, document_prompt: put before texts; None takes the model's own.
        max_terms: heaviest BM25 terms kept a document; None keeps all.
        fields: declared metadata fields, so that ``index`` finds the shards with them.
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
    query_prompt: str | None = None
    document_prompt: str | None = None
    max_terms: int | None = None
    fields: dict[str, str] = field(default_factory=dict)
    sample_documents: int = 100_000
    name: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        """Refuse settings now rather than after hours of work."""
        check_settings(self.k1, self.b)
        check_dtype(self.dtype)
        native_precision(self.precision)
        if self.settings.seed < 0:
            raise InputError(f"seed {self.settings.seed}", "a seed is 0 or more")


@dataclass(frozen=True, slots=True)
class DistilledPack:
    """What the job made: the pack's metadata, and the encoded documents on the way."""

    metadata: PackMetadata
    manifest: Manifest
    shards: Path


@dataclass(frozen=True, slots=True)
class EncodedCorpus:
    """All that a table is learned from; several tables can be learned from the same.

    Attributes:
        teacher: the frozen model.
        tokenizer: the pack's.
        tokens: its dense settings.
        statistics: of the corpus' terms, for BM25.
        metadata: of the pack, but for how its table was learned.
        manifest, folder: of the encoded documents.
    """

    teacher: Teacher
    tokenizer: QueryTokenizer
    tokens: PackTokenizer
    statistics: CorpusStatistics
    metadata: PackMetadata
    manifest: Manifest
    folder: Path


def distill_pack(
    corpus: Corpus,
    job: DistillationJob,
    out: Path,
    progress: Progress,
    *,
    shards: Path | None = None,
    overwrite: bool = False,
    max_rejected: int | None = None,
) -> DistilledPack:
    """Make a query pack for a frozen model on a corpus.

    Args:
        corpus: whose text the table is learned on and whose idf the pack carries.
        job: what and how.
        out: the pack's folder.
        progress: shows the stages.
        shards: where the encoded documents go; None is the cache.
        overwrite: replace a pack that is there.
        max_rejected: stop when more lines are no documents.

    Raises:
        InputError: the corpus, the model or a setting cannot be used.
    """
    refuse_taken(out, overwrite)
    encoded = encode_for_distillation(
        corpus, job, progress, shards=shards, max_rejected=max_rejected
    )
    manifest, tokenizer, teacher = encoded.manifest, encoded.tokenizer, encoded.teacher
    documents, vectors = sample(encoded, job)
    table = distill(
        documents, vectors, teacher, encoded.tokens, tokenizer.rows, job.settings, progress
    )
    provenance = {
        "corpus": {
            "name": corpus.name,
            "sha256": manifest.plan.corpus_sha256,
            "documents": manifest.encoded,
            "rejected": manifest.rejected,
            "sampled": len(documents),
        },
        "recipe": table.recipe,
        "held_out": table.held_out.to_dict(),
        "document_precision": teacher.precision,
    }
    sealed = write_pack(
        out,
        replace(encoded.metadata, provenance=provenance),
        tokenizer.text,
        table_tensors(table.rows, job.dtype, DEFAULT_TABLE),
        encoded.statistics.idf(),
        overwrite=overwrite,
    )
    return DistilledPack(sealed, manifest, encoded.folder)


def encode_for_distillation(
    corpus: Corpus,
    job: DistillationJob,
    progress: Progress,
    *,
    shards: Path | None = None,
    max_rejected: int | None = None,
) -> EncodedCorpus:
    """Open the model, count the terms and encode the documents; arguments as of distill_pack."""
    with progress.stage("open the model"):
        given = {"query": job.query_prompt, "document": job.document_prompt}
        teacher = open_teacher(
            job.model,
            revision=job.revision,
            precision=job.precision,
            prompts={name: text for name, text in given.items() if text is not None},
        )
    tokenizer = query_tokenizer(teacher.tokenizer_json(), lowercase=job.lowercase)
    loaded = load_tokenizer(tokenizer.text, job.model, tokenizer.rows)
    tokens = PackTokenizer(
        loaded.tokenizer, tokenizer.rows, ignored_ids=tokenizer.special_ids, words=loaded.words
    )
    with progress.stage("count terms"):
        statistics = count_corpus(_texts(corpus, job.fields), tokens, tokenizer.rows)
    metadata = _metadata(job, teacher, tokenizer, statistics)
    plan = plan_encoding(
        corpus,
        dense_space=metadata.dense_space.id,
        sparse_space=metadata.sparse_space.id,
        vocabulary_size=tokenizer.rows,
        dims=teacher.dims,
        precision=teacher.precision,
        fields=job.fields,
    )
    folder = shards or shards_folder(plan)
    avgdl = metadata.sparse.avgdl or statistics.avgdl
    bm25 = Bm25Encoder(
        tokens, tokenizer.rows, avgdl=avgdl, k1=job.k1, b=job.b, max_terms=job.max_terms
    )
    manifest = encode_corpus(
        corpus,
        plan,
        lambda: PairedEncoder(teacher, bm25),
        folder,
        progress,
        max_rejected=max_rejected,
    )
    if manifest.rejected:
        progress.say(f"{manifest.rejected:,} lines rejected: see {folder / REJECTED}")
    return EncodedCorpus(teacher, tokenizer, tokens, statistics, metadata, manifest, folder)


def _texts(corpus: Corpus, fields: Mapping[str, str]) -> Iterator[str]:
    """What the encoders will read; a corpus of nothing but bad lines is an error."""
    first: Rejection | None = None
    found = False
    for result in documents_of(corpus, fields):
        if isinstance(result, Rejection):
            first = first or result
        else:
            found = True
            yield result.document.content
    if not found:
        reason = f": line {first.line}, {first.reason}" if first else ""
        raise InputError(f"no document in {corpus.path}{reason}", "check the corpus")


def _metadata(
    job: DistillationJob,
    teacher: Teacher,
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
            max_terms=job.max_terms,
            ignored_ids=tokenizer.special_ids,
            k1=job.k1,
            b=job.b,
            avgdl=round(statistics.avgdl, 6),
            documents=statistics.documents,
        ),
        licence=job.licence,
    )


def sample(encoded: EncodedCorpus, job: DistillationJob) -> tuple[list[Document], DenseVectors]:
    """The documents the table is learned on: all, or as many as ``sample_documents``."""
    most, seed = job.sample_documents, job.settings.seed
    return sample_documents(encoded.manifest, encoded.folder, most, seed)
