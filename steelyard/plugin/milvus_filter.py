"""The filter tree as a Milvus boolean expression."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from steelyard.errors import InputError
from steelyard.plugin.filters import And, Eq, Exists, Filter, In, Not, Or, Range, Scalar

COLUMN_PREFIX = "m_"
"""Metadata columns are prefixed, so that a field may be called ``id`` or ``text``."""


def milvus_expression(filter: Filter | None, fields: Collection[str]) -> str:
    """Compile a filter; None is the empty expression, which every document satisfies.

    Values are written as quoted literals, never pasted in.

    Raises:
        InputError: a field that the index does not declare.
    """
    return "" if filter is None else _compile(filter, fields)


def ids_expression(ids: Sequence[str]) -> str:
    """The documents with these ids; pymilvus itself would paste ids in unescaped."""
    return f"id in [{', '.join(map(_literal, ids))}]"


def _compile(node: Filter, fields: Collection[str]) -> str:
    if isinstance(node, And | Or):
        if not node.clauses:
            raise InputError(f"an empty {type(node).__name__} filter", "give it a clause")
        word = " and " if isinstance(node, And) else " or "
        return "(" + word.join(_compile(clause, fields) for clause in node.clauses) + ")"
    if isinstance(node, Not):
        return f"(not {_compile(node.clause, fields)})"
    column = _column(node.field, fields)
    if isinstance(node, Exists):
        return f"({column} is not null)"
    if isinstance(node, Eq):
        return f"({column} == {_literal(node.value)})"
    if isinstance(node, In):
        return f"({column} in [{', '.join(map(_literal, node.values))}])"
    return _range(column, node)


def _range(column: str, node: Range) -> str:
    bounds = ((">=", node.gte), (">", node.gt), ("<=", node.lte), ("<", node.lt))
    clauses = [f"{column} {sign} {_literal(value)}" for sign, value in bounds if value is not None]
    if not clauses:
        raise InputError(f"a range on {node.field!r} without a bound", "give gte, gt, lte or lt")
    return "(" + " and ".join(clauses) + ")"


def _column(field: str, fields: Collection[str]) -> str:
    if field not in fields:
        raise InputError(
            f"the index declares no metadata field {field!r}",
            f"declared: {', '.join(sorted(fields)) or 'none'}",
        )
    return COLUMN_PREFIX + field


def _literal(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False)
