"""``steelyard train``: document towers, and the data they learn from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steelyard.cli import train_lightretriever
from steelyard.cli.options import (
    Corpus,
    FormatOption,
    MappingIdOption,
    MappingTextOption,
    MappingTitleOption,
    PrecisionOption,
)
from steelyard.cli.output import JsonOption, RichProgress, print_pairs, write_json

if TYPE_CHECKING:
    from steelyard.training.data.job import TrainingDataReport

app = typer.Typer(help="Train document towers.", no_args_is_help=True)
app.command("lightretriever")(train_lightretriever.lightretriever)


@app.callback()
def train() -> None:
    """Train document towers."""


@app.command()
def data(
    corpus: Corpus,
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write: .jsonl or .jsonl.gz.")],
    kinds: Annotated[
        str,
        typer.Option(help="Pairs made of the corpus itself; '' for none."),
    ] = "title,sentence,span,definition",
    judged: Annotated[
        str | None,
        typer.Option(metavar="SPLIT", help="Also a BEIR folder's judged pairs, e.g. train."),
    ] = None,
    held_out: Annotated[
        str | None,
        typer.Option(
            metavar="SPLIT",
            help="Leave out what asks for the same as a BEIR folder's judged queries, e.g. test.",
        ),
    ] = None,
    negatives: Annotated[
        str,
        typer.Option(
            metavar="bm25|none|MODEL",
            help="What ranks candidates: bm25, a query pack (its tower), or a model folder, "
            "installed package or hub name.",
        ),
    ] = "bm25",
    per_query: Annotated[int, typer.Option(min=1, help="Negatives of a query.")] = 7,
    depth: Annotated[int, typer.Option(min=1, help="Candidates looked at.")] = 100,
    ratio: Annotated[
        float,
        typer.Option(
            help="A candidate of this share of the positive's score or more is no negative; "
            "0: no such limit."
        ),
    ] = 0.95,
    margin: Annotated[
        float,
        typer.Option(help="Nor is one that scores the positive's less this margin or more."),
    ] = 0.0,
    fill: Annotated[
        bool, typer.Option(help="Draw random documents where mining finds too few.")
    ] = True,
    near: Annotated[
        float,
        typer.Option(help="Jaccard similarity of near duplicates; 2 drops exact ones only."),
    ] = 0.8,
    ids: Annotated[
        bool, typer.Option("--ids", help="Write negatives as ids of the corpus.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is drawn.")] = 0,
    id: MappingIdOption = None,
    title: MappingTitleOption = None,
    text: MappingTextOption = None,
    format: FormatOption = None,
    precision: PrecisionOption = "auto",
    json: JsonOption = None,
) -> None:
    """Make training pairs of a corpus itself, with hard negatives."""
    from steelyard.indexer.reading.mapping import FieldMapping
    from steelyard.indexer.reading.readers import open_corpus
    from steelyard.training.data.hard_negatives import MiningSettings
    from steelyard.training.data.job import TrainingDataJob, make_training_data
    from steelyard.training.data.pairs import PairSettings

    named = tuple(part for kind in kinds.split(",") if (part := kind.strip()))
    job = TrainingDataJob(
        pairs=PairSettings(named, seed, near),
        judged=judged,
        held_out=held_out,
        negatives=negatives,
        mining=MiningSettings(per_query, depth, ratio or None, margin, fill, seed),
        by_id=ids,
        precision=precision,
    )
    mapping = FieldMapping.parse(id=id, title=title, text=text)
    opened = open_corpus(corpus, mapping, format)
    report = make_training_data(opened, job, out, RichProgress())
    print_pairs(_shown(report))
    write_json(report.to_json(), json)


def _shown(report: TrainingDataReport) -> dict[str, Any]:
    counts, mining = report.counts, report.mining
    kinds = ", ".join(f"{kind} {n:,}" for kind, n in report.examples.items())
    shown: dict[str, Any] = {
        "examples": f"{sum(report.examples.values()):,} ({kinds})",
        "documents": f"{counts.documents:,}, {_duplicates(counts.duplicate_documents)} left out",
        "queries": f"{_duplicates(counts.duplicate_queries)} left out",
        "rejected": f"{counts.rejected:,}",
    }
    if report.settings.held_out is not None:
        shown["held out"] = f"{report.held_out:,} examples left out"
    if counts.first_rejected:
        first = counts.first_rejected[0]
        where = f"{first.file}, line {first.line}" if first.file else f"line {first.line}"
        shown["rejected"] += f" ({where}: {first.reason})"
    if report.judged_bad:
        bad = report.judged_bad[0]
        shown["bad lines"] = (
            f"{report.judged_bad_lines:,} ({bad.file}, line {bad.line}: {bad.reason})"
        )
    if mining is not None:
        shown["negatives"] = f"{mining.mined:,} mined, {mining.random:,} random"
        shown["false negatives"] = (
            f"{mining.false_negatives:,} of {mining.candidates:,} candidates, "
            f"{mining.above_positive:,} above their positive"
        )
        shown["short of negatives"] = f"{mining.short:,} examples"
    shown["out"] = f"{report.out}, {report.bytes / 1e6:,.1f} MB"
    return shown


def _duplicates(counts: dict[str, int]) -> str:
    exact, near = counts.get("exact", 0), counts.get("near", 0)
    return f"{exact:,} duplicates and {near:,} near duplicates"
