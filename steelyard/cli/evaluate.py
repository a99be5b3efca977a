"""``steelyard eval``: systems over one index and judged queries."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steelyard.cli.options import (
    AdapterMovedOption,
    DeviceOption,
    EngineOption,
    ModelMovedOption,
    PackOption,
    PrecisionOption,
)
from steelyard.cli.output import JsonOption, RichProgress, print_rows, status, write_json
from steelyard.errors import EngineError, InputError
from steelyard.eval.systems import DEFAULT_SYSTEMS

if TYPE_CHECKING:
    from steelyard.eval.collection import JudgedQueries
    from steelyard.eval.evaluate import SystemResult
    from steelyard.eval.systems import System

SEARCHES = ("exact", "engine")


def evaluate_command(
    corpus: Annotated[
        Path, typer.Argument(metavar="CORPUS", help="BEIR folder with queries and qrels.")
    ],
    pack: PackOption,
    to: EngineOption,
    systems: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated; the first is the baseline of the test. "
            f"Default: {DEFAULT_SYSTEMS}, with the pack's sparse kind."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="qrels/<split>.tsv.")] = "test",
    candidates: Annotated[
        int | None, typer.Option(min=1, help="Candidates of each arm; default: the pack's.")
    ] = None,
    fusion: Annotated[
        str | None, typer.Option(help="min-max or rrf; default: the pack's.")
    ] = None,
    feedback: Annotated[int, typer.Option(min=1, help="Documents that refine a query.")] = 3,
    search: Annotated[
        str,
        typer.Option(
            help="exact: in memory, over the vectors the engine stores; engine: its own search."
        ),
    ] = "exact",
    runs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a TREC run file a system here.")
    ] = None,
    model: ModelMovedOption = None,
    adapter: AdapterMovedOption = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = None,
    json: JsonOption = None,
) -> None:
    """Measure systems on judged queries: nDCG@10, R@100, RR@10, AP, encoding speed."""
    from steelyard.encoders.pack.files import read_metadata
    from steelyard.eval.collection import read_judged
    from steelyard.eval.systems import default_systems, parse_systems
    from steelyard.plugin.fusion import Fusion

    metadata = read_metadata(pack)
    parsed = parse_systems(systems or default_systems(metadata.sparse.kind))
    judged, defaults = read_judged(corpus, split), metadata.fusion
    method, depth = Fusion.of_pack(defaults, fusion), candidates or defaults.candidates
    if search not in SEARCHES:
        raise InputError(f"unknown --search {search!r}", f"choose one of {', '.join(SEARCHES)}")
    results = run_systems(
        parsed,
        judged,
        pack,
        to,
        fusion=method,
        candidates=depth,
        feedback=feedback,
        exact=search == "exact",
        tower={"model": model, "adapter": adapter, "precision": precision, "device": device},
    )
    if runs is not None:
        from steelyard.eval.runs import write_trec

        runs.mkdir(parents=True, exist_ok=True)
        for result in results:
            write_trec(result.run, runs / f"{result.system.name}.trec")
    print_results(judged.name, results)
    if judged.missing:
        status.print(f"  {judged.missing} judged queries are not in the query file", markup=False)
    report = {
        "collection": judged.name,
        "queries": len(judged.queries),
        "missing_queries": judged.missing,
        "candidates": depth,
        "fusion": asdict(method),
        "feedback": feedback,
        "search": search,
        "baseline": parsed[0].name,
        "rows": [result.row() for result in results],
    }
    write_json(report, json)


def run_systems(
    systems: list[System],
    judged: JudgedQueries,
    pack: Path,
    to: str,
    *,
    exact: bool = True,
    tower: dict[str, Any],
    **settings: Any,
) -> list[SystemResult]:
    """Open pack and engine, and evaluate.

    Args:
        systems, judged: what to measure on what.
        pack, to: the query pack's folder and the engine's URL.
        exact: search the stored vectors in memory; else ask the engine.
        tower: of the full model: what ``open_dense_encoder`` takes.
        settings: ``fusion``, ``candidates`` and ``feedback`` of ``evaluate``.
    """
    from steelyard.encoders.documents.from_pack import open_dense_encoder
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.eval.evaluate import evaluate
    from steelyard.plugin.exact import ExactIndex
    from steelyard.plugin.packs import check_spaces
    from steelyard.plugin.urls import open_engine

    queries, progress = QueryEncoder.load(pack), RichProgress()
    engine = open_engine(to, must_exist=True, vocabulary=queries.tokenizer)
    try:
        generation = engine.resolve()
        if generation is None:
            raise EngineError(f"no index {engine.alias!r} in {to}", "run 'steelyard index' first")
        check_spaces(queries.metadata.spaces, generation)
        index = engine.open(generation)
        if exact:
            with progress.stage("read the stored vectors"):
                index = ExactIndex(generation, index.export())
        return evaluate(
            systems,
            judged,
            queries,
            index,
            lambda: open_dense_encoder(queries.metadata, **tower),
            progress,
            **settings,
        )
    finally:
        engine.close()


def print_results(name: str, results: list[SystemResult]) -> None:
    """The table on the terminal."""
    rows = []
    for result in results:
        row = result.row()
        rows.append(
            [
                row["system"],
                *(f"{row[m]:.4f}" for m in ("ndcg@10", "recall@100", "rr@10", "ap")),
                f"{row['encode_qps']:,.0f}",
                f"{row['p_value']:.2g}",
            ]
        )
    columns = ["system", "nDCG@10", "R@100", "RR@10", "AP", "q/s"]
    print_rows(name, [*columns, f"p vs {results[0].system.name}"], rows)
