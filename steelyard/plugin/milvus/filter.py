"""The filter tree as a Milvus boolean expression.

A condition on a document without the field does not hold, and its negation does, as everywhere in
Steelyard. Milvus itself says neither of a null, so negations are moved down to the conditions, and
each says there what it makes of a missing value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from steelyard.plugin.filters import (
    And,
    Eq,
    Exists,
    Filter,
    In,
    Not,
    Or,
    Range,
    Scalar,
    check_filter,
)
from steelyard.plugin.milvus.layout import ALWAYS, DYNAMIC, NULL, Column, Layout

_INT64 = 2**63


def milvus_expression(filter: Filter | None, layout: Layout) -> str:
    """Compile a filter; None is the empty expression, which every document satisfies.

    Values are written as quoted literals, never pasted in.

    Raises:
        InputError: a filter that cannot be: see ``check_filter``.
    """
    if filter is None:
        return ""
    check_filter(filter, {name: column.kind for name, column in layout.fields.items()})
    return _Compiler(layout).compile(filter, negated=False)


def ids_expression(ids: Sequence[str], layout: Layout) -> str:
    """The documents with these ids; pymilvus itself would paste ids in unescaped."""
    if not layout.key_is_int:
        return strings_expression(layout.key, ids)
    return f"{layout.key} in [{', '.join(str(n) for n in map(_number, ids) if n is not None)}]"


def strings_expression(column: str, values: Sequence[str]) -> str:
    """The rows that have one of these strings in a column."""
    return f"{column} in [{', '.join(map(_literal, values))}]"


def behind_expression(identifier: str, layout: Layout) -> str:
    """The documents whose ids come later."""
    return f"{layout.key} > {identifier if layout.key_is_int else _literal(identifier)}"


def _number(identifier: str) -> int | None:
    """The INT64 that is written so; None where there is none."""
    try:
        number = int(identifier)
    except ValueError:
        return None
    return number if str(number) == identifier and -_INT64 < number < _INT64 else None


class _Compiler:
    def __init__(self, layout: Layout) -> None:
        self._fields: Mapping[str, Column] = layout.fields
        self._nothing = f"({layout.key} in [])"
        self._everything = f"(not {self._nothing})"

    def compile(self, node: Filter, *, negated: bool) -> str:
        if isinstance(node, And | Or):
            word = " and " if isinstance(node, And) != negated else " or "
            clauses = [self.compile(clause, negated=negated) for clause in node.clauses]
            return "(" + word.join(clauses) + ")"
        if isinstance(node, Not):
            return self.compile(node.clause, negated=not negated)
        column = self._fields[node.field]
        there = _presence(column)
        if isinstance(node, Exists):
            if there is None:
                return self._nothing if negated else self._everything
            return there[1] if negated else there[0]
        test = _test(node, column)
        if test is None:
            return self._everything if negated else self._nothing
        if there is None:
            return f"(not ({test}))" if negated else f"({test})"
        if negated:
            return f"({there[1]} or (not ({test})))"
        return f"({test})" if column.presence == NULL else f"({there[0]} and ({test}))"


def _presence(column: Column) -> tuple[str, str] | None:
    """That a document has the field, and that it has not; None where all have it."""
    if column.presence == ALWAYS:
        return None
    if column.presence == NULL:
        return f"({column.name} is not null)", f"({column.name} is null)"
    if column.presence == DYNAMIC:
        return f"(exists {column.name})", f"(not (exists {column.name}))"
    return f"({column.flag} == true)", f"({column.flag} == false)"


def _test(node: Eq | In | Range, column: Column) -> str | None:
    """The condition on a value that is there; None is one that no value meets."""
    if isinstance(node, Range):
        return _range(node, column)
    if isinstance(node, Eq):
        found = _equals(node.value, column.kind)
        return None if found is None else f"{column.name} == {_literal(found)}"
    values = [_equals(value, column.kind) for value in node.values]
    literals = [_literal(value) for value in values if value is not None]
    return f"{column.name} in [{', '.join(literals)}]" if literals else None


def _range(node: Range, column: Column) -> str | None:
    bounds = ((">=", node.gte), (">", node.gt), ("<=", node.lte), ("<", node.lt))
    given = [(sign, value) for sign, value in bounds if value is not None]
    clauses = []
    for sign, value in given:
        if column.kind == "int" and not isinstance(value, str):
            clause = _int_bound(column.name, sign, value)
            if clause is None:
                return None
            clauses.append(clause)
        else:
            clauses.append(f"{column.name} {sign} {_literal(_as(column.kind, value))}")
    every = f"({column.name} >= 0 or {column.name} < 0)"
    return " and ".join(clause for clause in clauses if clause) or every


def _int_bound(name: str, sign: str, value: float) -> str | None:
    """A bound on whole numbers; "" is one that all meet, None one that none meets."""
    lower = sign in (">=", ">")
    if value != math.floor(value):
        # Above 5.5 is from 6 on, below 5.5 is up to 5.
        sign, value = (">=", math.ceil(value)) if lower else ("<=", math.floor(value))
    bound = int(value)
    if bound <= -_INT64:
        return "" if lower else None
    return f"{name} {sign} {bound}"


def _equals(value: Scalar, kind: str) -> Scalar | None:
    """A value as its column holds it; None where it can hold no such value."""
    if kind == "int" and not isinstance(value, str):
        whole = int(value)
        return whole if whole == value and -_INT64 < whole < _INT64 else None
    return _as(kind, value)


def _as(kind: str, value: Scalar) -> Scalar:
    return float(value) if kind == "float" else value


def _literal(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False)
