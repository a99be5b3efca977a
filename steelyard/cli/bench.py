"""``steelyard bench``: speed, as ratios measured in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steelyard.cli.example_corpus import example_corpus
from steelyard.cli.options import ModelMovedOption, PackOption, PrecisionOption
from steelyard.cli.output import JsonOption, print_rows, write_json

app = typer.Typer(help="Speed, as ratios measured in one run.", no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Speed, as ratios measured in one run."""


@app.command()
def query(
    pack: PackOption,
    queries: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Real queries; default: examples/scifact."),
    ] = None,
    full: Annotated[bool, typer.Option(help="Also time the full model.")] = True,
    model: ModelMovedOption = None,
    precision: PrecisionOption = "auto",
    json: JsonOption = None,
) -> None:
    """Query encoding against its own tokenizer and against the full model."""
    from steelyard.encoders.documents.from_pack import open_dense_encoder
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.eval.bench_query import bench_query
    from steelyard.eval.collection import read_queries

    encoder = QueryEncoder.load(pack)
    found, _ = read_queries(queries or example_corpus() / "queries.jsonl")
    teacher = (
        open_dense_encoder(encoder.metadata, model=model, precision=precision) if full else None
    )
    result = bench_query(encoder, [q.text for q in found], teacher)
    rows = [
        ["tokenizer alone", f"{result.tokenizer_qps:,.0f}", "1"],
        ["look-up, dense", f"{result.lookup_qps:,.0f}", f"{result.lookup_share:.2f}"],
        ["look-up, both arms", f"{result.both_arms_qps:,.0f}", f"{result.both_arms_share:.2f}"],
    ]
    if result.full_qps and result.speed_up:
        share = result.full_qps / result.tokenizer_qps
        rows.append(["full model, batch 256", f"{result.full_qps:,.0f}", f"{share:.4f}"])
    title = f"{result.queries:,} queries in a batch"
    print_rows(title, ["encoder", "queries/s", "of the tokenizer"], rows)
    if result.speed_up:
        typer.echo(f"look-up over full model, batch 256: {result.speed_up:,.0f} times")
    typer.echo(
        f"one query, both arms: {result.single_query_us:.0f} us, {result.single_ratio:.2f} times "
        f"tokenising it ({result.single_tokenizer_us:.0f} us)"
    )
    write_json(result.to_dict(), json)
