"""``steelyard bench indexing`` and ``steelyard bench soak``: the job, measured and killed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from steelyard.cli.output import JsonOption, RichProgress, print_pairs, print_rows, write_json
from steelyard.errors import InputError

ToOption = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="URL",
        help="Engine with {} as the index name: 'opensearch://localhost:9200/{}'; for 'indexing' "
        "also 'count:{}', which keeps nothing.",
    ),
]


def indexing(
    to: ToOption,
    documents: Annotated[int, typer.Option(min=1, help="Short synthetic ones.")] = 50_000,
    rounds: Annotated[int, typer.Option(min=0, help="Of the timing; 0 leaves it out.")] = 1,
    times: Annotated[
        int, typer.Option(min=0, help="Memory is compared at so many times the documents; 0: not.")
    ] = 10,
    dims: Annotated[int, typer.Option(min=1, help="Of the vectors.")] = 384,
    json: JsonOption = None,
) -> None:
    """Whether encoding and loading overlap, and memory stays flat, with a tower that is free."""
    from steelyard.eval.bench.indexing import bench_memory, bench_overlap, result_of

    _check(to)
    progress, result = RichProgress(), {}
    with tempfile.TemporaryDirectory(prefix="steelyard-bench-") as folder:
        if rounds:
            place = Path(folder) / "overlap"
            place.mkdir()
            overlap = bench_overlap(place, to, documents, rounds, progress, dims=dims)
            result["overlap"] = result_of(overlap)
        if times:
            place = Path(folder) / "memory"
            place.mkdir()
            memory = bench_memory(place, to, documents, times, progress, dims=dims)
            result["memory"] = result_of(memory)
    for title, values in result.items():
        print_rows(title, list(values), [[f"{value:,}" for value in values.values()]])
    write_json(result, json)


def soak(
    to: ToOption,
    kills: Annotated[int, typer.Option(min=1, help="kill -9, at random moments.")] = 10,
    documents: Annotated[int, typer.Option(min=1, help="Synthetic ones.")] = 3000,
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
    json: JsonOption = None,
) -> None:
    """Kill indexing jobs and compare what they end with to an undisturbed one's."""
    from steelyard.eval.bench.soak import SoakSettings
    from steelyard.eval.bench.soak import soak as run_soak

    _check(to)
    with tempfile.TemporaryDirectory(prefix="steelyard-soak-") as folder:
        settings = SoakSettings(kills=kills, documents=documents, seed=seed)
        report = run_soak(Path(folder), to.format, settings, RichProgress())
    result = {
        "kills": report.kills.total(),
        **{f"in {stage}": count for stage, count in sorted(report.kills.items())},
        "processes": report.runs,
        "documents": report.documents,
        "queries with equal rankings": report.queries,
    }
    print_pairs(result)
    write_json(result, json)


def _check(url: str) -> None:
    if url.count("{}") != 1:
        raise InputError(
            f"{url!r} has no single {{}} for the names of the indexes",
            "write opensearch://localhost:9200/{} or 'milvus-lite:///tmp/{}.db?name=x'",
        )
