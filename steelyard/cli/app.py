"""All commands under one name."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

import steelyard
from steelyard.cli import (
    adopt,
    bench,
    bench_distillation,
    bench_engines,
    bench_indexing,
    bench_latency,
    bench_peers,
    bench_sweeps,
    bench_training,
    changes,
    cluster,
    demo,
    dev,
    encode,
    evaluate,
    export_pyserini,
    generations,
    guard,
    index,
    pack,
    plan,
    query,
    report,
    search,
    status,
    tower,
    train,
)

app = typer.Typer(
    name="steelyard",
    help="Heavy documents, weightless queries.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(pack.app, name="pack")
app.add_typer(tower.app, name="tower")
app.add_typer(bench.app, name="bench")
for command in (
    bench_distillation.distillation,
    bench_engines.bulk,
    bench_engines.search,
    bench_engines.recall,
    bench_indexing.indexing,
    bench_indexing.soak,
    bench_latency.latency,
    bench_sweeps.sizes,
    bench_sweeps.fusion,
    bench_peers.peers,
    bench_training.ablations,
    bench_training.training,
):
    bench.app.command()(command)
app.add_typer(dev.app, name="dev")
app.add_typer(export_pyserini.app, name="export")
app.add_typer(cluster.app, name="cluster")
app.add_typer(train.app, name="train")
app.command("index")(index.index)
app.command("encode-documents")(index.encode_documents)
app.command("upsert")(changes.upsert)
app.command("delete")(changes.delete)
app.command("generations")(generations.generations)
app.command("rollback")(generations.rollback)
app.command("gc")(generations.gc)
app.command("load")(index.load)
app.command("encode")(encode.encode)
app.command("search")(search.search)
app.command("plan")(plan.plan)
app.command("adopt")(adopt.adopt)
app.command("query")(query.query)
app.command("eval")(evaluate.evaluate_command)
app.command("guard")(guard.guard)
app.command("report")(report.report)
app.command("demo")(demo.demo)
app.command("status")(status.status)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Heavy documents, weightless queries."""
    # Libraries log what they also raise, traceback and all, and pymilvus resets the levels of its
    # loggers when it is imported. A command says itself what matters.
    logging.disable(logging.ERROR)
    if version:
        typer.echo(steelyard.__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
