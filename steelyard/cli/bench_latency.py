"""``steelyard bench latency``: hybrid search end to end, look-up against full model."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steelyard.cli.bench_engines import load_passages
from steelyard.cli.comma_separated import integers
from steelyard.cli.options import EngineOption, ModelMovedOption, PackOption
from steelyard.cli.output import JsonOption, RichProgress, print_rows, write_json

if TYPE_CHECKING:
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.plugin.engine import Engine
    from steelyard.plugin.searcher import Searcher


def latency(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="BEIR folder with queries.")],
    pack: PackOption,
    to: EngineOption,
    passages: Annotated[
        int, typer.Option(min=0, help="Index so many passages of the corpus first; 0: as it is.")
    ] = 100_000,
    queries: Annotated[int, typer.Option(min=1, help="So many of its queries.")] = 1000,
    clients: Annotated[
        str, typer.Option(help="That ask at once: comma-separated, each is measured.")
    ] = "1,4",
    candidates: Annotated[int, typer.Option(min=10, help="Of each arm.")] = 100,
    k: Annotated[int, typer.Option(min=1, help="Hits of a search, with their texts.")] = 10,
    memory: Annotated[
        bool, typer.Option(help="Also what processes hold that only encode queries.")
    ] = True,
    model: ModelMovedOption = None,
    precision: Annotated[
        str, typer.Option(help="Of the full model with queries: auto, float32, bfloat16.")
    ] = "auto",
    torch_threads: Annotated[
        int | None, typer.Option(min=1, help="Of the full model; default: PyTorch's own.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """From text to hits: latency and queries/s, look-up against full model, on one index."""
    from steelyard.encoders.documents.from_pack import open_dense_encoder
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.eval.bench.encoder_memory import encoder_memory
    from steelyard.eval.bench.full_model_queries import FullModelQueries
    from steelyard.eval.bench.latency import bench_latency, ratios
    from steelyard.eval.bench.machine import machine, set_torch_threads
    from steelyard.eval.collection import read_queries
    from steelyard.plugin.urls import open_engine

    counts, where = integers(clients, "--clients", example="1,4", least=1), machine()
    found, _ = read_queries(corpus / "queries.jsonl")
    texts = list(dict.fromkeys(query.text for query in found))
    timed, warm_up = texts[:queries], texts[queries:] or texts
    progress = RichProgress()
    if passages:
        load_passages(corpus, pack, to, passages, "auto", dense_only=True, model=model)
    held = {}
    if memory:  # first: what fails here must not cost the searches
        with progress.stage("memory"):
            for kind in ("lookup", "full"):
                held[kind] = encoder_memory(
                    pack, kind, timed[:100], model=model, precision=precision
                )
    lookup = QueryEncoder.load(pack)
    tower = open_dense_encoder(lookup.metadata, model=model, precision=precision)
    threads = set_torch_threads(torch_threads)
    with ExitStack() as stack:
        full = FullModelQueries(pack, tower)
        stack.callback(full.close)
        engine = open_engine(to, must_exist=True, vocabulary=lookup.tokenizer)
        stack.callback(engine.close)
        contenders = _contenders({"lookup": lookup, "full": full}, engine, candidates)
        indexed, arms = _count(contenders["lookup dense"])
        results = bench_latency(contenders, timed, warm_up, progress, clients=counts, k=k)
    report = {
        "format": 1,
        "kind": "latency",
        "engine": re.sub(r":[^,]*", "", to),
        "arms": arms,
        "documents": indexed,
        "queries": len(timed),
        "candidates": candidates,
        "k": k,
        "model": lookup.metadata.document_encoder.model,
        "precision": tower.precision,
        "torch_threads": threads,
        "full_model_sharing": "batches of the queries that wait",
        "machine": where,
        "results": results,
        "ratios": [
            one
            for arm in ("hybrid", "dense")
            for one in ratios(results, f"lookup {arm}", f"full {arm}")
        ],
        "encoder_process": held,
    }
    _print(report)
    write_json(report, json)


def _contenders(
    encoders: dict[str, QueryEncoder], engine: Engine, candidates: int
) -> dict[str, Searcher]:
    """Searchers of one engine, so that all use its connections; it is not theirs to close."""
    from steelyard.plugin.engine import DENSE, SPARSE
    from steelyard.plugin.searcher import Searcher

    def over(queries: QueryEncoder, *arms: str) -> Searcher:
        return Searcher(queries, engine, candidates=candidates, arms=arms)

    dense = {f"{name} dense": over(queries, DENSE) for name, queries in encoders.items()}
    if SPARSE not in dense["lookup dense"].index().arms:
        return dense
    return {
        **{f"{name} hybrid": over(queries, DENSE, SPARSE) for name, queries in encoders.items()},
        **dense,
        "sparse": over(encoders["lookup"], SPARSE),
    }


def _count(searcher: Searcher) -> tuple[int, list[str]]:
    """Documents, and arms, of the index that is searched."""
    index = searcher.index()
    return index.count(), list(index.arms)


def _short(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def _print(report: dict[str, Any]) -> None:
    columns = ["ms", "queries/s", "p50", "p95", "p99", "encode", "search", "client CPU"]
    for result in report["results"]:
        rows = [
            [
                row["contender"],
                f"{row['qps']:,.1f}",
                *(_short(row["total_ms"][name]) for name in ("p50", "p95", "p99")),
                _short(row["encode_ms"]["p50"]),
                _short(row["search_ms"]["p50"]),
                _short(row["client_processor_ms"]),
            ]
            for row in result["rows"]
        ]
        title = (
            f"{report['engine']}, {report['documents']:,} documents, {report['candidates']} "
            f"candidates; {report['queries']:,} queries of each, clients: {result['clients']}"
        )
        print_rows(title, columns, rows)
    for one in report["ratios"]:
        typer.echo(
            f"{one['heavy']} over {one['light']}, clients {one['clients']}: p50 "
            f"{one['p50_times']:.2f}, p95 {one['p95_times']:.2f}, p99 {one['p99_times']:.2f} "
            f"times; the look-up answers {one['qps_times']:.2f} times as many queries/s"
        )
    for kind, held in report["encoder_process"].items():
        size = "unknown memory"
        if held["resident_mb"] is not None:
            size = (
                f"{held['resident_mb']:,.0f} MB, {held['private_mb']:,.0f} of them no mapped files"
            )
        typer.echo(
            f"a process that encodes queries, {kind}: {size}; first query after "
            f"{held['first_query_seconds']:.2f} s"
        )
    typer.echo(
        f"full model: {report['precision']}, {report['torch_threads']} threads of PyTorch; "
        "clients share it, what waits is its next batch"
    )
