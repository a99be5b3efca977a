"""``steelyard index``: a corpus into an engine; ``encode-documents``: only into shards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from steelyard.cli.options import (
    AdapterMovedOption,
    Corpus,
    DeviceOption,
    EngineOption,
    MaxRejectedOption,
    MetadataOption,
    ModelMovedOption,
    PackOption,
    PrecisionOption,
    ShardDocumentsOption,
    ShardsOption,
)
from steelyard.cli.output import JsonOption, RichProgress, print_pairs, write_json
from steelyard.cli.ray_options import (
    ActorsOption,
    CpusPerActorOption,
    GpusPerActorOption,
    RayAddressOption,
    RayOption,
    ray_settings,
)

if TYPE_CHECKING:
    from steelyard.plugin.engine import Engine
    from steelyard.plugin.vocabulary import Vocabulary


def encode_documents(
    corpus: Corpus,
    pack: PackOption,
    shards: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the Parquet shards.")],
    metadata: MetadataOption = "",
    model: ModelMovedOption = None,
    adapter: AdapterMovedOption = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = None,
    shard_documents: ShardDocumentsOption = 2048,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Padded tokens in a batch.")] = 4096,
    max_rejected: MaxRejectedOption = None,
    ray: RayOption = False,
    ray_address: RayAddressOption = None,
    actors: ActorsOption = None,
    gpus_per_actor: GpusPerActorOption = 0,
    cpus_per_actor: CpusPerActorOption = 1,
    json: JsonOption = None,
) -> None:
    """Encode a corpus into Parquet shards: id, texts, dense, sparse_ids, sparse_weights."""
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.indexer import build
    from steelyard.indexer.reading.metadata_fields import parse_fields
    from steelyard.indexer.reading.readers import open_corpus

    folder, manifest = build.encode_documents(
        open_corpus(corpus),
        QueryEncoder.load(pack),
        RichProgress(),
        model=model,
        adapter=adapter,
        precision=precision,
        device=device,
        fields=parse_fields(metadata),
        shards=shards,
        shard_documents=shard_documents,
        batch_tokens=batch_tokens,
        max_rejected=max_rejected,
        ray=ray_settings(ray, ray_address, actors, gpus_per_actor, cpus_per_actor),
    )
    result = {
        "read": manifest.read,
        "encoded": manifest.encoded,
        "rejected": manifest.rejected,
        "shards": str(folder),
    }
    print_pairs(result)
    write_json(result, json)


def index(
    corpus: Corpus,
    pack: PackOption,
    to: EngineOption,
    metadata: MetadataOption = "",
    model: ModelMovedOption = None,
    adapter: AdapterMovedOption = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = None,
    shards: ShardsOption = None,
    shard_documents: ShardDocumentsOption = 2048,
    max_rejected: MaxRejectedOption = None,
    ray: RayOption = False,
    ray_address: RayAddressOption = None,
    actors: ActorsOption = None,
    gpus_per_actor: GpusPerActorOption = 0,
    cpus_per_actor: CpusPerActorOption = 1,
    analyzer: Annotated[
        str | None, typer.Option(help="Of texts, for the match arm (OpenSearch), e.g. english.")
    ] = None,
    keep: Annotated[int, typer.Option(min=0, help="Older generations to keep.")] = 1,
    json: JsonOption = None,
) -> None:
    """Encode a corpus and load it; readers see the new index when it is complete."""
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.indexer.build import index_corpus
    from steelyard.indexer.reading.metadata_fields import parse_fields
    from steelyard.indexer.reading.readers import open_corpus

    source, queries, fields = open_corpus(corpus), QueryEncoder.load(pack), parse_fields(metadata)
    report = index_corpus(
        source,
        queries,
        lambda: _opened(to, queries.tokenizer, analyzer),
        RichProgress(),
        model=model,
        adapter=adapter,
        precision=precision,
        device=device,
        fields=fields,
        shards=shards,
        shard_documents=shard_documents,
        max_rejected=max_rejected,
        ray=ray_settings(ray, ray_address, actors, gpus_per_actor, cpus_per_actor),
        keep=keep,
    )
    manifest, load = report.manifest, report.load
    rejected = f"{manifest.rejected:,}"
    if manifest.rejected:
        rejected += f" (see {report.shards / 'rejected.jsonl'})"
    print_pairs(
        {
            "read": f"{manifest.read:,}",
            "indexed": f"{load.documents:,}",
            "rejected": rejected,
            "weights clipped": f"{load.clipped:,}",
            "generation": load.generation + (" (already there)" if load.reused else ""),
            "shards": report.shards,
        }
    )
    result = {
        "read": manifest.read,
        "indexed": load.documents,
        "rejected": manifest.rejected,
        "clipped": load.clipped,
        "generation": load.generation,
        "reused": load.reused,
        "dropped": load.dropped,
        "shards": str(report.shards),
    }
    write_json(result, json)


def _opened(to: str, vocabulary: Vocabulary, analyzer: str | None) -> Engine:
    from steelyard.plugin.searcher import set_text_match
    from steelyard.plugin.text_match import TextMatch
    from steelyard.plugin.urls import open_engine

    engine = open_engine(to, vocabulary=vocabulary)
    try:
        set_text_match(engine, None if analyzer is None else TextMatch(analyzer=analyzer))
    except BaseException:
        engine.close()
        raise
    return engine
