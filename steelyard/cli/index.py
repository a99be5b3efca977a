"""``index``: a corpus into engines; ``encode-documents``: to shards; ``load``: from shards."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steelyard.cli.options import (
    AdapterMovedOption,
    Corpus,
    DeviceOption,
    EnginesOption,
    FailOnRejectedOption,
    FormatOption,
    LogFormatOption,
    LogLevelOption,
    MappingIdOption,
    MappingTextOption,
    MappingTitleOption,
    MaxRejectedOption,
    MetadataOption,
    MetricsOption,
    ModelMovedOption,
    PackOption,
    PassagesOption,
    PrecisionOption,
    ProgressOption,
    PushGatewayOption,
    ShardDocumentsOption,
    ShardsOption,
)
from steelyard.cli.output import JsonOption, RichProgress
from steelyard.cli.ray_options import (
    ActorsOption,
    CpusPerActorOption,
    GpusPerActorOption,
    RayAddressOption,
    RayOption,
    ray_settings,
)
from steelyard.cli.watching import watched
from steelyard.errors import InputError

if TYPE_CHECKING:
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.indexer.encoding.manifest import Manifest
    from steelyard.indexer.loading.sink import LoadReport, Sink
    from steelyard.plugin.engine import Engine
    from steelyard.plugin.vocabulary import Vocabulary

BatchTokensOption = Annotated[int, typer.Option(min=1, help="Padded tokens in a batch.")]
AnalyzerOption = Annotated[
    str | None, typer.Option(help="Of texts, for the match arm (OpenSearch), e.g. english.")
]
KeepOption = Annotated[int, typer.Option(min=0, help="Older generations to keep.")]
PatienceOption = Annotated[
    str,
    typer.Option(
        metavar="TIME", help="How long to wait for a busy or restarting server: 30s, 5m, 1h."
    ),
]
SnapshotTimeOption = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="When the corpus was taken, ISO 8601: later live changes are applied to it. Default: "
        "when its newest file was changed.",
    ),
]
AbortOption = Annotated[
    bool,
    typer.Option("--abort", help="Drop what an interrupted run of this command began, and end."),
]


def encode_documents(
    corpus: Corpus,
    pack: PackOption,
    shards: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the Parquet shards.")],
    metadata: MetadataOption = "",
    id: MappingIdOption = None,
    title: MappingTitleOption = None,
    text: MappingTextOption = None,
    format: FormatOption = None,
    passages: PassagesOption = None,
    model: ModelMovedOption = None,
    adapter: AdapterMovedOption = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = None,
    shard_documents: ShardDocumentsOption = 2048,
    batch_tokens: BatchTokensOption = 4096,
    max_rejected: MaxRejectedOption = None,
    ray: RayOption = False,
    ray_address: RayAddressOption = None,
    actors: ActorsOption = None,
    gpus_per_actor: GpusPerActorOption = 0,
    cpus_per_actor: CpusPerActorOption = 1,
    progress: ProgressOption = "auto",
    metrics: MetricsOption = None,
    push_gateway: PushGatewayOption = None,
    log_format: LogFormatOption = None,
    log_level: LogLevelOption = "info",
    fail_on_rejected: FailOnRejectedOption = False,
    json: JsonOption = None,
) -> None:
    """Encode a corpus into Parquet shards: id, texts, dense, sparse_ids, sparse_weights."""
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.indexer import build
    from steelyard.indexer.reading.mapping import FieldMapping
    from steelyard.indexer.reading.metadata_fields import parse_fields
    from steelyard.indexer.reading.readers import open_corpus

    mapping = FieldMapping.parse(id=id, title=title, text=text, metadata=metadata)
    with watched(
        "encode-documents",
        progress=progress,
        metrics=metrics,
        push_gateway=push_gateway,
        log_format=log_format,
        log_level=log_level,
        fail_on_rejected=fail_on_rejected,
        json=json,
        signals=False,
    ) as job:
        folder, manifest = build.encode_documents(
            open_corpus(corpus, mapping, format),
            QueryEncoder.load(pack),
            job,
            build.EncodeSettings(
                model=model,
                adapter=adapter,
                precision=precision,
                device=device,
                fields=parse_fields(metadata),
                shards=shards,
                shard_documents=shard_documents,
                batch_tokens=batch_tokens,
                max_rejected=max_rejected,
                passages=passages or "",
                ray=ray_settings(ray, ray_address, actors, gpus_per_actor, cpus_per_actor),
            ),
        )
        result = {
            "read": manifest.read,
            "encoded": manifest.encoded,
            "rejected": manifest.rejected,
            "shards": str(folder),
        }
        job.result.update(result)


def index(
    corpus: Corpus,
    pack: PackOption,
    to: EnginesOption,
    metadata: MetadataOption = "",
    id: MappingIdOption = None,
    title: MappingTitleOption = None,
    text: MappingTextOption = None,
    format: FormatOption = None,
    passages: PassagesOption = None,
    model: ModelMovedOption = None,
    adapter: AdapterMovedOption = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = None,
    shards: ShardsOption = None,
    shard_documents: ShardDocumentsOption = 2048,
    batch_tokens: BatchTokensOption = 4096,
    max_rejected: MaxRejectedOption = None,
    ray: RayOption = False,
    ray_address: RayAddressOption = None,
    actors: ActorsOption = None,
    gpus_per_actor: GpusPerActorOption = 0,
    cpus_per_actor: CpusPerActorOption = 1,
    analyzer: AnalyzerOption = None,
    keep: KeepOption = 1,
    patience: PatienceOption = "5m",
    snapshot_time: SnapshotTimeOption = None,
    abort: AbortOption = False,
    progress: ProgressOption = "auto",
    metrics: MetricsOption = None,
    push_gateway: PushGatewayOption = None,
    log_format: LogFormatOption = None,
    log_level: LogLevelOption = "info",
    fail_on_rejected: FailOnRejectedOption = False,
    json: JsonOption = None,
) -> None:
    """Encode a corpus and load it; readers see the new index when it is complete.

    Interrupted in any way, the same command goes on where it was.
    """
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.indexer.build import EncodeSettings, index_corpus, plan_of
    from steelyard.indexer.encoding.places import shards_folder
    from steelyard.indexer.loading.job import LoadSettings
    from steelyard.indexer.reading.mapping import FieldMapping
    from steelyard.indexer.reading.metadata_fields import parse_fields
    from steelyard.indexer.reading.readers import open_corpus

    mapping = FieldMapping.parse(id=id, title=title, text=text, metadata=metadata)
    source, queries = open_corpus(corpus, mapping, format), QueryEncoder.load(pack)
    sinks = _sinks(to, queries, analyzer)
    encoding = EncodeSettings(
        model=model,
        adapter=adapter,
        precision=precision,
        device=device,
        fields=parse_fields(metadata),
        shards=shards,
        shard_documents=shard_documents,
        batch_tokens=batch_tokens,
        max_rejected=max_rejected,
        passages=passages or "",
        ray=ray_settings(ray, ray_address, actors, gpus_per_actor, cpus_per_actor),
    )
    if abort:
        folder = shards or shards_folder(plan_of(source, queries, encoding))
        _abort(folder, queries, sinks, RichProgress())
        return
    loading = LoadSettings(
        keep, seconds_of(patience), max_rejected, snapshot=time_of(snapshot_time)
    )
    with watched(
        "index",
        progress=progress,
        metrics=metrics,
        push_gateway=push_gateway,
        log_format=log_format,
        log_level=log_level,
        fail_on_rejected=fail_on_rejected,
        json=json,
        signals=False,
    ) as job:
        report = index_corpus(source, queries, sinks, job, encoding, loading)
        job.result.update(_result(report.shards, report.manifest, report.loads))


def load(
    shards: Annotated[Path, typer.Argument(metavar="SHARDS", help="Folder of encoded documents.")],
    pack: PackOption,
    to: EnginesOption,
    max_rejected: MaxRejectedOption = None,
    analyzer: AnalyzerOption = None,
    keep: KeepOption = 1,
    patience: PatienceOption = "5m",
    snapshot_time: SnapshotTimeOption = None,
    model: ModelMovedOption = None,
    adapter: AdapterMovedOption = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = None,
    abort: AbortOption = False,
    progress: ProgressOption = "auto",
    metrics: MetricsOption = None,
    push_gateway: PushGatewayOption = None,
    log_format: LogFormatOption = None,
    log_level: LogLevelOption = "info",
    fail_on_rejected: FailOnRejectedOption = False,
    json: JsonOption = None,
) -> None:
    """Load a folder of shards into engines; nothing is encoded."""
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.indexer.build import EncodeSettings, changes_of
    from steelyard.indexer.loading.job import LoadSettings
    from steelyard.indexer.loading.load import complete_folder, load_folder

    queries = QueryEncoder.load(pack)
    sinks = _sinks(to, queries, analyzer)
    manifest = complete_folder(shards)
    if abort:
        _abort(shards, queries, sinks, RichProgress())
        return
    taken = time_of(snapshot_time)
    with watched(
        "load",
        progress=progress,
        metrics=metrics,
        push_gateway=push_gateway,
        log_format=log_format,
        log_level=log_level,
        fail_on_rejected=fail_on_rejected,
        json=json,
        signals=False,
    ) as job:
        tower = EncodeSettings(model=model, adapter=adapter, precision=precision, device=device)
        loading = LoadSettings(
            keep,
            seconds_of(patience),
            max_rejected,
            snapshot=taken,
            changes=changes_of(queries, tower, job),
        )
        loads = load_folder(manifest, shards, queries.metadata, sinks, job, loading)
        job.result.update(_result(shards, manifest, loads))


def time_of(text: str | None) -> datetime | None:
    """A time as ISO 8601; without a zone it is UTC.

    Raises:
        InputError: anything else.
    """
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise InputError(f"{text!r} is no time", "write 2026-01-31T02:00:00Z") from error
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def seconds_of(text: str) -> float:
    """``90``, ``30s``, ``5m`` or ``1h`` in seconds.

    Raises:
        InputError: anything else.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if found is None:
        raise InputError(f"{text!r} is no time", "write 30s, 5m or 1h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def _sinks(urls: list[str], queries: QueryEncoder, analyzer: str | None) -> list[Sink]:
    from steelyard.indexer.loading.sink import Sink, steady_url

    return [
        Sink(steady_url(url), lambda url=url: _opened(url, queries.tokenizer, analyzer))  # type: ignore[misc]
        for url in urls
    ]


def _abort(folder: Path, queries: QueryEncoder, sinks: list[Sink], progress: RichProgress) -> None:
    from steelyard.indexer.loading.abandon import abandon

    for sink in sinks:
        dropped = abandon(folder, queries.metadata, sink)
        progress.say(f"dropped {dropped}" if dropped else f"{sink.url}: nothing was begun")


def _result(folder: Path, manifest: Manifest, loads: list[LoadReport]) -> dict[str, Any]:
    """Of ``--json``."""
    sinks = [
        {
            "engine": load.sink,
            "indexed": load.documents,
            "refused": load.refused,
            "clipped": load.clipped,
            "generation": load.generation,
            "reused": load.reused,
            "dropped": load.dropped,
        }
        for load in loads
    ]
    return {
        "read": manifest.read,
        "encoded": manifest.encoded,
        "rejected": manifest.rejected,
        **sinks[0],
        "shards": str(folder),
        "engines": sinks,
    }


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
