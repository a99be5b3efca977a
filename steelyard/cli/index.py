"""``index``: a corpus into engines; ``encode-documents``: to shards; ``load``: from shards."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steelyard.cli.options import (
    AdapterMovedOption,
    Corpus,
    DeviceOption,
    EnginesOption,
    MaxRejectedOption,
    MetadataOption,
    ModelMovedOption,
    PackOption,
    PrecisionOption,
    ShardDocumentsOption,
    ShardsOption,
)
from steelyard.cli.output import JsonOption, RichProgress, print_pairs, write_json
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
AbortOption = Annotated[
    bool,
    typer.Option("--abort", help="Drop what an interrupted run of this command began, and end."),
]


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
    batch_tokens: BatchTokensOption = 4096,
    max_rejected: MaxRejectedOption = None,
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
        ),
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
    to: EnginesOption,
    metadata: MetadataOption = "",
    model: ModelMovedOption = None,
    adapter: AdapterMovedOption = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = None,
    shards: ShardsOption = None,
    shard_documents: ShardDocumentsOption = 2048,
    batch_tokens: BatchTokensOption = 4096,
    max_rejected: MaxRejectedOption = None,
    analyzer: AnalyzerOption = None,
    keep: KeepOption = 1,
    patience: PatienceOption = "5m",
    abort: AbortOption = False,
    json: JsonOption = None,
) -> None:
    """Encode a corpus and load it; readers see the new index when it is complete.

    Interrupted in any way, the same command goes on where it was.
    """
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.indexer.build import EncodeSettings, index_corpus, plan_of
    from steelyard.indexer.encoding.places import shards_folder
    from steelyard.indexer.loading.job import LoadSettings
    from steelyard.indexer.reading.metadata_fields import parse_fields
    from steelyard.indexer.reading.readers import open_corpus

    source, queries, progress = open_corpus(corpus), QueryEncoder.load(pack), RichProgress()
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
    )
    if abort:
        folder = shards or shards_folder(plan_of(source, queries, encoding))
        _abort(folder, queries, sinks, progress)
        return
    loading = LoadSettings(keep, seconds_of(patience), max_rejected)
    report = index_corpus(source, queries, sinks, progress, encoding, loading)
    _tell(report.shards, report.manifest, report.loads, json)


def load(
    shards: Annotated[Path, typer.Argument(metavar="SHARDS", help="Folder of encoded documents.")],
    pack: PackOption,
    to: EnginesOption,
    max_rejected: MaxRejectedOption = None,
    analyzer: AnalyzerOption = None,
    keep: KeepOption = 1,
    patience: PatienceOption = "5m",
    abort: AbortOption = False,
    json: JsonOption = None,
) -> None:
    """Load a folder of shards into engines; nothing is encoded."""
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.indexer.loading.job import LoadSettings
    from steelyard.indexer.loading.load import complete_folder, load_folder

    queries, progress = QueryEncoder.load(pack), RichProgress()
    sinks = _sinks(to, queries, analyzer)
    manifest = complete_folder(shards)
    if abort:
        _abort(shards, queries, sinks, progress)
        return
    loading = LoadSettings(keep, seconds_of(patience), max_rejected)
    loads = load_folder(manifest, shards, queries.metadata, sinks, progress, loading)
    _tell(shards, manifest, loads, json)


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


def _tell(folder: Path, manifest: Manifest, loads: list[LoadReport], json: Path | None) -> None:
    rejected = f"{manifest.rejected:,}"
    if manifest.rejected or any(load.refused for load in loads):
        rejected += f" (see {folder / 'rejected.jsonl'})"
    pairs: dict[str, Any] = {"read": f"{manifest.read:,}", "rejected": rejected}
    if manifest.encoded != manifest.wholes:
        pairs["passages"] = f"{manifest.encoded:,} of {manifest.wholes:,} documents"
    for load in loads:
        if len(loads) > 1:
            pairs["engine"] = load.sink
        pairs["indexed"] = f"{load.documents:,}"
        if load.refused:
            pairs["refused by the engine"] = f"{load.refused:,}"
        pairs["weights clipped"] = f"{load.clipped:,}"
        pairs["generation"] = load.generation + (" (already there)" if load.reused else "")
        if load is not loads[-1]:
            print_pairs(pairs)
            pairs = {}
    print_pairs({**pairs, "shards": folder})
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
    result = {
        "read": manifest.read,
        "encoded": manifest.encoded,
        "rejected": manifest.rejected,
        **sinks[0],
        "shards": str(folder),
        "engines": sinks,
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
