"""``steelyard bench distillation``: variants of look-up distillation, measured."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from steelyard.cli.comma_separated import integers
from steelyard.cli.options import (
    DocumentPromptOption,
    PrecisionOption,
    QueryPromptOption,
    ShardsOption,
)
from steelyard.cli.output import JsonOption, RichProgress, print_rows, write_json
from steelyard.eval.study.variants import DEFAULT_VARIANTS


def distillation(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="Judged BEIR folder.")],
    model: Annotated[str, typer.Option(help="Frozen model, as in 'pack distill'.")],
    variants: Annotated[
        str,
        typer.Option(
            help="Comma-separated, parts joined by +: default, 48k, average-2, join-2, words, "
            "margin, both-losses, epochs-6, lean-0.1. Gains are over the first."
        ),
    ] = DEFAULT_VARIANTS,
    seeds: Annotated[str, typer.Option(help="Comma-separated.")] = "0,1",
    split: Annotated[str, typer.Option(help="Choose on train, report test.")] = "train",
    memory: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where encoded pseudo-queries are kept, so that a stopped study goes on.",
        ),
    ] = None,
    query_prompt: QueryPromptOption = None,
    document_prompt: DocumentPromptOption = None,
    shards: ShardsOption = None,
    precision: PrecisionOption = "auto",
    json: JsonOption = None,
) -> None:
    """Learn look-up tables by variants of the recipe, and measure each on judged queries."""
    from steelyard.config import cache_dir
    from steelyard.eval.collection import read_judged
    from steelyard.eval.study.study import Study, StudyRun
    from steelyard.eval.study.summary import estimates, summarise
    from steelyard.eval.study.variants import parse_variants
    from steelyard.indexer.distillation_job import DistillationJob
    from steelyard.indexer.reading.readers import open_corpus

    chosen, numbers = parse_variants(variants), integers(seeds, "--seeds", example="0,1", least=0)
    judged = read_judged(corpus, split)
    job = DistillationJob(
        model=model,
        precision=precision,
        query_prompt=query_prompt,
        document_prompt=document_prompt,
    )
    place = memory or cache_dir() / "study"
    study = Study(open_corpus(corpus), judged, job, place, shards, RichProgress())
    runs: list[StudyRun] = []
    result: dict[str, Any] = {}
    for run in study.run(chosen, numbers):
        runs.append(run)
        result = {
            "format": 1,
            "kind": "distillation",
            "collection": judged.name,
            "model": model,
            "queries": len(judged.queries),
            "full": asdict(study.full),
            "bm25": round(study.bm25, 4),
            "summary": summarise(runs, study.full),
            "estimates": estimates(runs),
            "runs": [asdict(each) for each in runs],
        }
        write_json(result, json)
    print_rows(
        f"{judged.name}, seeds {seeds}: nDCG@10 on {len(judged.queries)} queries",
        [
            "variant",
            "dense",
            "dev.",
            "gain",
            "fused",
            "dev.",
            "gain",
            "encode CPU s",
            "learn CPU s",
        ],
        [
            [
                "full model",
                f"{study.full.dense:.4f}",
                "",
                "",
                f"{study.full.fused:.4f}",
                *[""] * 4,
            ],
            *(_row(row) for row in result["summary"]),
        ],
    )
    if result["estimates"]:
        print_rows(
            f"held-out estimates against nDCG@10 of {len(runs)} tables, Spearman",
            ["estimate", "dense", "fused"],
            [
                [row["estimate"], *(_signed(row[key], 2) for key in ("dense", "fused"))]
                for row in result["estimates"]
            ],
        )


def _row(row: dict[str, Any]) -> list[str]:
    cells = [row["variant"]]
    for key in ("dense", "fused"):
        deviation, error = row[f"{key}_deviation"], row[f"{key}_gain_error"]
        gain = _signed(row[f"{key}_gain"], 4)
        cells += [
            _four(row[key]),
            "" if deviation is None else _four(deviation),
            gain if error is None else f"{gain} +- {error:.4f}",
        ]
    return [*cells, f"{row['encode_seconds']:.0f}", f"{row['learn_seconds']:.0f}"]


def _four(value: float) -> str:
    return f"{value:.4f}"


def _signed(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:+.{digits}f}"
