"""The regression guard: a committed table of expected figures, and what departs from it.

Figures are compared as the table states them, to the fourth decimal. How far one may be off
depends on its system. On one kind of processor all are the same; on another a model's vectors
differ a little, and what was distilled from them a little more (docs/regression-guard.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from steelyard.encoders.pack.json_fields import read_dataclass
from steelyard.errors import InputError, PackError, SteelyardError

FORMAT = 1
OFF, MISSING, UNEXPECTED = "off", "missing", "unexpected"
"""A figure beyond its tolerance; a system or a figure not in the report; a system not in the
table, which is told and no failure."""

_DECIMALS = 4


class RegressionError(SteelyardError):
    """Figures that are not what the table expects."""


@dataclass(frozen=True, slots=True)
class ExpectedRow:
    """One system's figures.

    Attributes:
        system: its name.
        tolerance: which of the table's tolerances apply.
        measures: measure -> value, to four decimals.
    """

    system: str
    tolerance: str
    measures: dict[str, float]


@dataclass(frozen=True, slots=True)
class Expected:
    """A table of expected figures.

    Attributes:
        collection: name and split, such as ``scifact/test``.
        command: what makes a report to compare.
        settings: what a report must say as well, as far as it says it: model, seed, candidates.
        tolerances: name -> measure -> how far a value may be off, either way.
        rows: one a system.
        provenance: the recipe of the pack that was measured, and where; told, not compared.
        format: of the file.
    """

    collection: str
    command: str
    settings: dict[str, Any]
    tolerances: dict[str, dict[str, float]]
    rows: list[ExpectedRow]
    provenance: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Deviation:
    """Something that is not as expected.

    Attributes:
        kind: ``OFF``, ``MISSING`` or ``UNEXPECTED``.
        system: whose.
        measure: which; empty where the whole system is missing or unexpected.
        expected, found: values; None where there is none.
        tolerance: that was allowed.
    """

    kind: str
    system: str
    measure: str = ""
    expected: float | None = None
    found: float | None = None
    tolerance: float | None = None

    @property
    def fails(self) -> bool:
        """Whether this is a regression."""
        return self.kind != UNEXPECTED


def check_expected(rows: Sequence[Mapping[str, Any]], expected: Expected) -> list[Deviation]:
    """What departs from the table, in its order; systems that it does not have come last.

    Args:
        rows: of a report: ``system``, and its measures by name.
        expected: the table.
    """
    found = {row["system"]: row for row in rows}
    deviations = []
    for row in expected.rows:
        if row.system not in found:
            deviations.append(Deviation(MISSING, row.system))
            continue
        for measure, value in row.measures.items():
            tolerance = expected.tolerances[row.tolerance][measure]
            measured = found[row.system].get(measure)
            if measured is None:
                deviations.append(Deviation(MISSING, row.system, measure, value, None, tolerance))
                continue
            measured = round(float(measured), _DECIMALS)
            # Written so that NaN is off, too.
            if not round(abs(measured - value), _DECIMALS) <= tolerance:
                deviations.append(Deviation(OFF, row.system, measure, value, measured, tolerance))
    known = {row.system for row in expected.rows}
    return deviations + [Deviation(UNEXPECTED, name) for name in found if name not in known]


def collection_of(report: Mapping[str, Any], expected: Expected) -> Mapping[str, Any]:
    """The part of a report that the table is about.

    Args:
        report: JSON of ``steelyard eval`` (several collections) or ``steelyard demo`` (one).
        expected: the table.

    Raises:
        InputError: the report has no such collection, or was made with other settings.
    """
    parts: Any = report.get("collections") or [report]
    if not isinstance(parts, list) or not all(isinstance(p, Mapping) for p in parts):
        raise InputError("this is no report of an evaluation", f"make it by '{expected.command}'")
    part: Mapping[str, Any] | None
    part = next((p for p in parts if p.get("collection") == expected.collection), None)
    if part is None or not part.get("rows"):
        names = ", ".join(str(p.get("collection")) for p in parts)
        raise InputError(
            f"the report measures {names}, the table expects {expected.collection}",
            f"make the report by '{expected.command}'",
        )
    if not isinstance(part["rows"], list) or not all(_fits(r, expected) for r in part["rows"]):
        raise InputError(
            f"the report's rows of {expected.collection} are no figures of systems",
            f"make the report by '{expected.command}'",
        )
    found: Mapping[str, Any] = part
    said = {**report, **found}
    for name, value in expected.settings.items():
        if name in said and said[name] != value:
            raise InputError(
                f"the report was made with {name} {said[name]}, the table with {value}",
                f"make the report by '{expected.command}'",
            )
    return found


def _fits(row: object, expected: Expected) -> bool:
    """Whether a row names its system, and the table's measures are numbers where it has them."""
    if not isinstance(row, Mapping) or not isinstance(row.get("system"), str):
        return False
    measures = {measure for one in expected.rows for measure in one.measures}
    return all(isinstance(row.get(measure), int | float | None) for measure in measures)


def renewed(
    rows: Sequence[Mapping[str, Any]], expected: Expected, provenance: Mapping[str, Any]
) -> Expected:
    """The table with the figures of a report; its systems, measures and tolerances stay.

    Raises:
        InputError: the report lacks a system or a measure of the table.
    """
    missing = [d for d in check_expected(rows, expected) if d.kind == MISSING]
    if missing:
        one = missing[0]
        raise InputError(
            f"the report has no {' '.join(filter(None, (one.system, one.measure)))}",
            f"make the report by '{expected.command}', or take it out of the table by hand",
        )
    found = {row["system"]: row for row in rows}
    fresh = [
        replace(
            row, measures={m: round(float(found[row.system][m]), _DECIMALS) for m in row.measures}
        )
        for row in expected.rows
    ]
    return replace(expected, rows=fresh, provenance={**expected.provenance, **provenance})


def read_expected(path: Path) -> Expected:
    """A table.

    Raises:
        InputError: no table, or one that cannot be used.
    """
    try:
        table = read_dataclass(Expected, json.loads(path.read_text(encoding="utf-8")), path.name)
    except FileNotFoundError:
        raise InputError(f"no table of expected figures at {path}", "give --expect FILE") from None
    except (ValueError, PackError) as error:
        reason = error.message if isinstance(error, PackError) else str(error)
        raise InputError(f"{path} is no table of expected figures: {reason}") from error
    if table.format != FORMAT:
        raise InputError(
            f"{path} has format {table.format}, this version reads {FORMAT}", "upgrade steelyard"
        )
    for row in table.rows:
        lacking = set(row.measures) - set(table.tolerances.get(row.tolerance, {}))
        if lacking:
            raise InputError(
                f"{path}: tolerance {row.tolerance!r} of {row.system} does not say "
                f"{', '.join(sorted(lacking))}",
                "add it to tolerances",
            )
    return table


def write_expected(path: Path, table: Expected) -> None:
    """One line a system, so that a change of the table reads well."""
    value = asdict(table)
    rows = value.pop("rows")
    text = json.dumps(value, indent=2, ensure_ascii=False)
    lines = ",\n".join(f"    {json.dumps(row)}" for row in rows)
    path.write_text(f'{text[:-2]},\n  "rows": [\n{lines}\n  ]\n}}\n', encoding="utf-8")
