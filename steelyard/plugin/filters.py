"""Conditions on metadata fields, as a small typed tree that every engine compiles for itself.

A filter is pushed inside both arms and the feedback search, never applied afterwards: filtering
a finished list would return fewer hits than were asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

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
