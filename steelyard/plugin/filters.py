"""Conditions on metadata fields, as a small typed tree that every engine compiles for itself.

A filter is pushed inside both arms and the feedback search, never applied afterwards: filtering
a finished list would return fewer hits than were asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from steelyard.errors import InputError

Scalar: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Eq:
    """The field has this value."""

    field: str
    value: Scalar


@dataclass(frozen=True, slots=True)
class In:
    """The field has one of these values."""

    field: str
    values: Sequence[Scalar]


@dataclass(frozen=True, slots=True)
class Range:
    """The field lies between these bounds; None leaves a side open."""

    field: str
    gte: Scalar | None = None
    gt: Scalar | None = None
    lte: Scalar | None = None
    lt: Scalar | None = None


@dataclass(frozen=True, slots=True)
class Exists:
    """The document has the field."""

    field: str


@dataclass(frozen=True, slots=True)
class And:
    """All of these hold."""

    clauses: Sequence[Filter]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of these holds."""

    clauses: Sequence[Filter]


@dataclass(frozen=True, slots=True)
class Not:
    """This does not hold."""

    clause: Filter


Filter: TypeAlias = Eq | In | Range | Exists | And | Or | Not

_INT64 = 2**63

MAX_DEPTH = 50
"""How deep clauses may be nested: engines have such limits too, and worse errors."""


def check_filter(filter: Filter, fields: Mapping[str, str], depth: int = 0) -> None:
    """Refuse what no engine could answer; every engine does so before it compiles a filter.

    Args:
        filter: the condition.
        fields: that the index declares, and their types.
        depth: of this clause.

    Raises:
        InputError: an undeclared field, a value of another type, a number that is not finite, an
            empty And, Or or Range, or clauses nested too deep.
    """
    if depth > MAX_DEPTH:
        raise InputError(f"the filter is nested more than {MAX_DEPTH} deep")
    if isinstance(filter, And | Or):
        if not filter.clauses:
            raise InputError(f"an empty {type(filter).__name__} filter", "give it a clause")
        for clause in filter.clauses:
            check_filter(clause, fields, depth + 1)
        return
    if isinstance(filter, Not):
        check_filter(filter.clause, fields, depth + 1)
        return
    field = filter.field
    if field not in fields:
        raise InputError(
            f"the index declares no metadata field {field!r}",
            f"declared: {', '.join(sorted(fields)) or 'none'}",
        )
    for value in _values(filter, fields[field]):
        _check_value(value, field, fields[field])


def _values(filter: Eq | In | Range | Exists, kind: str) -> list[Scalar]:
    if isinstance(filter, Exists):
        return []
    if isinstance(filter, Eq):
        return [filter.value]
    if isinstance(filter, In):
        return list(filter.values)
    bounds = [filter.gte, filter.gt, filter.lte, filter.lt]
    given = [bound for bound in bounds if bound is not None]
    if not given:
        raise InputError(f"a range on {filter.field!r} without a bound", "give gte, gt, lte or lt")
    if kind == "bool":
        raise InputError(f"a range on {filter.field!r}, which is true or false", "use Eq")
    return given


def _check_value(value: Scalar, field: str, kind: str) -> None:
    expected = {"keyword": str, "bool": bool}.get(kind, (int, float))
    if not isinstance(value, expected) or (kind != "bool" and isinstance(value, bool)):
        raise InputError(
            f"the metadata field {field!r} is of type {kind}, {value!r:.60} is not",
            "give a value of that type",
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{value} as a value of {field!r}", "give a finite number")
    if kind == "int" and isinstance(value, int | float) and not -_INT64 <= value < _INT64:
        raise InputError(f"{field!r} is compared with an integer of more than 64 bits")
