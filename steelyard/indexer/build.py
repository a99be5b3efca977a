"""Whole jobs: corpus to shards, and corpus to shards to engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steelyard.encoders.documents.batching import BATCH_TOKENS
from steelyard.encoders.documents.from_pack import document_precision, open_document_encoder
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.indexer.encoding.encode import SHARD_DOCUMENTS, encode_corpus, plan_encoding
from steelyard.indexer.encoding.manifest import Manifest
from steelyard.indexer.encoding.places import shards_folder
from steelyard.indexer.loading.load import LoadReport, load_shards
from steelyard.indexer.ray.settings import RaySettings
from steelyard.indexer.reading.readers import CorpusFile
from steelyard.plugin.engine import Engine
from steelyard.progress import Progress


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What an indexing job did: read = documents + rejected."""

    shards: Path
    manifest: Manifest
    load: LoadReport


def encode_documents(
    corpus: CorpusFile,
    pack: QueryEncoder,
    progress: Progress,
    *,
    model: str | None = None,
    adapter: str | None = None,
    precision: str = "auto",
    device: str | None = None,
    fields: dict[str, str] | None = None,
    shards: Path | None = None,
    shard_documents: int = SHARD_DOCUMENTS,
    batch_tokens: int = BATCH_TOKENS,
    max_rejected: int | None = None,
    ray: RaySettings | None = None,
) -> tuple[Path, Manifest]:
    """Encode a corpus with a pack's document encoder.

    Args:
        corpus: what to encode.
        pack: whose documents' spaces the shards will have.
        progress: shows the stages.
        model, adapter: where the document encoder is now, if not where the pack says.
        precision, device: of the document encoder.
        fields: declared metadata fields.
        shards: folder for the shards; None is the cache.
        shard_documents: documents in a shard.
        batch_tokens: padded tokens in a batch.
        max_rejected: stop when more lines are no documents.
        ray: encode on this cluster; None: here.

    Returns:
        The shards' folder and its manifest.
    """
    metadata = pack.metadata
    plan = plan_encoding(
        corpus,
        dense_space=metadata.spaces.dense,
        sparse_space=metadata.spaces.sparse,
        vocabulary_size=pack.vocabulary_size,
        dims=pack.dims,
        precision=document_precision(
            metadata, model=model, adapter=adapter, precision=precision, device=device
        ),
        fields=fields,
        shard_documents=shard_documents,
        batch_tokens=batch_tokens,
    )
    folder = shards or shards_folder(plan)
    encoder = None
    if ray is not None:
        from steelyard.indexer.ray.encoder import RayEncoder
        from steelyard.indexer.ray.tower import PackTower

        tower = PackTower(str(Path(pack.where).resolve()), model, adapter, plan.precision, device)
        encoder = RayEncoder(tower, plan, ray, progress.say)
    manifest = encode_corpus(
        corpus,
        plan,
        lambda: open_document_encoder(
            pack,
            model=model,
            adapter=adapter,
            precision=precision,
            device=device,
            say=progress.say,
        ),
        folder,
        progress,
        max_rejected=max_rejected,
        encoder=encoder,
    )
    return folder, manifest


def index_corpus(
    corpus: CorpusFile,
    pack: QueryEncoder,
    open_engine: Callable[[], Engine],
    progress: Progress,
    *,
    keep: int = 1,
    **encoding: Any,
) -> IndexReport:
    """Encode a corpus with a pack's document encoder and load it into an engine.

    Args:
        corpus: what to index.
        pack: whose documents' spaces the index will have.
        open_engine: where to. Opened twice: at once, so that a wrong address fails before hours of
            encoding, and to load, so that no connection idles through them.
        progress: shows the stages.
        keep: older generations to keep in the engine.
        encoding: what else ``encode_documents`` takes.
    """
    open_engine().close()
    folder, manifest = encode_documents(corpus, pack, progress, **encoding)
    engine = open_engine()
    try:
        load = load_shards(manifest, folder, pack.metadata, engine, progress, keep=keep)
    finally:
        engine.close()
    return IndexReport(folder, manifest, load)
