"""The whole indexing job: corpus to shards to engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from steelyard.encoders.documents.from_pack import open_document_encoder
from steelyard.encoders.documents.sentence_transformers import native_precision
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.indexer.encode import SHARD_DOCUMENTS, encode_corpus, plan_encoding
from steelyard.indexer.load import LoadReport, load_shards
from steelyard.indexer.manifest import Manifest
from steelyard.indexer.places import shards_folder
from steelyard.indexer.readers import CorpusFile
from steelyard.plugin.engine import Engine
from steelyard.progress import Progress


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What an indexing job did: read = documents + rejected."""

    shards: Path
    manifest: Manifest
    load: LoadReport


def index_corpus(
    corpus: CorpusFile,
    pack: QueryEncoder,
    engine: Engine,
    progress: Progress,
    *,
    model: str | None = None,
    precision: str = "auto",
    fields: dict[str, str] | None = None,
    shards: Path | None = None,
    shard_documents: int = SHARD_DOCUMENTS,
    max_rejected: int | None = None,
    keep: int = 1,
) -> IndexReport:
    """Encode a corpus with a pack's document encoder and load it into an engine.

    Args:
        corpus: what to index.
        pack: whose documents' spaces the index will have.
        engine: where to.
        progress: shows the stages.
        model: where the document encoder is now, if not where the pack says.
        precision: of the document encoder.
        fields: declared metadata fields.
        shards: where the encoded documents go; None is the cache.
        shard_documents: documents in a shard.
        max_rejected: stop when more lines are no documents.
        keep: older generations to keep in the engine.
    """
    metadata = pack.metadata
    plan = plan_encoding(
        corpus,
        dense_space=metadata.spaces.dense,
        sparse_space=metadata.spaces.sparse,
        vocabulary_size=pack.vocabulary_size,
        dims=pack.dims,
        precision=native_precision(precision),
        fields=fields,
        shard_documents=shard_documents,
    )
    folder = shards or shards_folder(plan)
    manifest = encode_corpus(
        corpus,
        plan,
        lambda: open_document_encoder(pack, model=model, precision=precision),
        folder,
        progress,
        max_rejected=max_rejected,
    )
    return IndexReport(
        folder, manifest, load_shards(manifest, folder, metadata, engine, progress, keep=keep)
    )
