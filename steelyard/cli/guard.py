"""``steelyard guard``: measured figures against a committed table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steelyard.cli.output import console, print_rows
from steelyard.errors import InputError

if TYPE_CHECKING:
    from steelyard.eval.guard import Deviation

TOLD = ("pack_id", "recipe", "versions")
TABLE = Path("examples/expected/scifact.json")


def guard(
    report: Annotated[
        Path,
        typer.Argument(
            metavar="REPORT", help="JSON of 'steelyard eval --json' or 'steelyard demo --json'."
        ),
    ],
    expect: Annotated[
        Path, typer.Option(metavar="TABLE", help="Expected figures and their tolerances.")
    ] = TABLE,
    renew: Annotated[
        bool, typer.Option("--renew", help="Write the report's figures into the table instead.")
    ] = False,
) -> None:
    """Compare figures with those expected; a figure beyond its tolerance is an error."""
    from steelyard.eval.guard import (
        RegressionError,
        check_expected,
        collection_of,
        read_expected,
        renewed,
        write_expected,
    )

    table, whole = read_expected(expect), _read(report)
    part = collection_of(whole, table)
    deviations = check_expected(part["rows"], table)
    if renew:
        made: dict[str, Any] = {name: whole[name] for name in TOLD if name in whole}
        if deviations and "pack_id" not in whole:  # of eval: the table's pack was another one
            told = {n: v for n, v in table.provenance.items() if n not in TOLD}
            table = replace(table, provenance=told)
        write_expected(expect, renewed(part["rows"], table, made))
        _show(f"{expect}: renewed; was", deviations)
        return
    _show(f"{report} against {expect}", deviations)
    failed = [deviation for deviation in deviations if deviation.fails]
    if failed:
        first = failed[0]
        raise RegressionError(
            f"{len(failed)} figures of {table.collection} are not as expected, first "
            f"{' '.join(filter(None, (first.system, first.measure)))}",
            f"mend what changed them; if they changed on purpose: '{table.command}', then "
            f"'steelyard guard REPORT --expect {expect} --renew', and say why in the commit",
        )
    console.print(f"{len(table.rows)} systems as expected", markup=False)


def _show(title: str, deviations: list[Deviation]) -> None:
    if deviations:
        columns = ["system", "measure", "expected", "found", "tolerance", ""]
        print_rows(title, columns, [_cells(deviation) for deviation in deviations])


def _cells(deviation: Deviation) -> list[str]:
    values = (deviation.expected, deviation.found, deviation.tolerance)
    numbers = ["" if value is None else f"{value:.4f}" for value in values]
    return [deviation.system, deviation.measure, *numbers, deviation.kind]


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no report at {path}", "write one with --json") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON: {error}", "write it again with --json") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} is no report", "write it again with --json")
    return value
