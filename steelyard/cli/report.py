"""``steelyard report``: results as Markdown and HTML, with plots."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULTS.json...", help="What 'eval --json' wrote.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR_or_FILE", help="Folder for report.md and report.html; or one of them."
        ),
    ],
    sizes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What 'bench sizes --json' wrote.")
    ] = None,
    fusion: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What 'bench fusion --json' wrote.")
    ] = None,
    title: Annotated[str, typer.Option(help="Of the report.")] = "Evaluation report",
) -> None:
    """Write a report of evaluations: tables, intervals, plots; Markdown and HTML."""
    from steelyard.eval.report.files import write_report
    from steelyard.eval.report.inputs import read_results
    from steelyard.eval.report.sections import make_report
    from steelyard.eval.sweeps.results import FusionResult, SizesResult, read_sweep

    result, commands = read_results(results)
    written = write_report(
        make_report(
            result,
            None if sizes is None else read_sweep(sizes, SizesResult),
            None if fusion is None else read_sweep(fusion, FusionResult),
            commands=commands,
            title=title,
        ),
        out,
    )
    for path in written:
        typer.echo(path)
