"""The filter tree as an OpenSearch query."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from steelyard.errors import InputError
from steelyard.plugin.filters import And, Eq, Exists, Filter, In, Not, Or, Range

METADATA = "metadata"
"""The object that holds the declared fields, so that one may be called ``id`` or ``text``."""

MAX_TERMS = 65_536
"""``index.max_terms_count``: values of one ``terms`` query."""


def opensearch_filter(filter: Filter, fields: Collection[str]) -> dict[str, Any]:
    """Compile a filter.

    Raises:
        InputError: a field that the index does not declare, an empty clause or range, or more
            values than OpenSearch takes.
    """
    node = filter
    if isinstance(node, And | Or):
        if not node.clauses:
            raise InputError(f"an empty {type(node).__name__} filter", "give it a clause")
        clauses = [opensearch_filter(clause, fields) for clause in node.clauses]
        if isinstance(node, And):
            return {"bool": {"filter": clauses}}
        return {"bool": {"should": clauses, "minimum_should_match": 1}}
    if isinstance(node, Not):
        return {"bool": {"must_not": [opensearch_filter(node.clause, fields)]}}
    path = _path(node.field, fields)
    if isinstance(node, Exists):
        return {"exists": {"field": path}}
    if isinstance(node, Eq):
        return {"term": {path: {"value": node.value}}}
    if isinstance(node, In):
        values = list(node.values)
        if len(values) > MAX_TERMS:
            raise InputError(
                f"{len(values):,} values for {node.field!r}, OpenSearch takes {MAX_TERMS:,}",
                "give fewer, or join several In by Or",
            )
        return {"terms": {path: values}}
    return _range(path, node)


def _range(path: str, node: Range) -> dict[str, Any]:
    inclusive, strict = {"gte": node.gte, "lte": node.lte}, {"gt": node.gt, "lt": node.lt}
    # In one range query the last of gte and gt would win, so that two are needed for both.
    twice = (node.gte is not None and node.gt is not None) or (
        node.lte is not None and node.lt is not None
    )
    parts = [
        {sign: value for sign, value in bounds.items() if value is not None}
        for bounds in ([inclusive, strict] if twice else [inclusive | strict])
    ]
    ranges = [{"range": {path: bounds}} for bounds in parts if bounds]
    if not ranges:
        raise InputError(f"a range on {node.field!r} without a bound", "give gte, gt, lte or lt")
    return ranges[0] if len(ranges) == 1 else {"bool": {"filter": ranges}}


def _path(field: str, fields: Collection[str]) -> str:
    if field not in fields:
        raise InputError(
            f"the index declares no metadata field {field!r}",
            f"declared: {', '.join(sorted(fields)) or 'none'}",
        )
    return f"{METADATA}.{field}"
