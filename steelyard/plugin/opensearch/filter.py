"""The filter tree as an OpenSearch query."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from steelyard.errors import InputError
from steelyard.plugin.filters import And, Eq, Exists, Filter, In, Not, Or, Range
from steelyard.plugin.opensearch.layout import METADATA

MAX_TERMS = 65_536
"""``index.max_terms_count``: values of one ``terms`` query."""


def opensearch_filter(
    filter: Filter, fields: Collection[str], paths: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Compile a filter.

    Args:
        filter: the condition.
        fields: that the index declares.
        paths: where they are; None is where Steelyard puts them.

    Raises:
        InputError: a field that the index does not declare, an empty clause or range, a value
            that is no number, or more values than OpenSearch takes.
    """
    node = filter
    if isinstance(node, And | Or):
        if not node.clauses:
            raise InputError(f"an empty {type(node).__name__} filter", "give it a clause")
        clauses = [opensearch_filter(clause, fields, paths) for clause in node.clauses]
        if isinstance(node, And):
            return {"bool": {"filter": clauses}}
        return {"bool": {"should": clauses, "minimum_should_match": 1}}
    if isinstance(node, Not):
        return {"bool": {"must_not": [opensearch_filter(node.clause, fields, paths)]}}
    path = _path(node.field, fields, paths)
    _check_numbers(node)
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


def _path(field: str, fields: Collection[str], paths: Mapping[str, str] | None) -> str:
    if field not in fields:
        raise InputError(
            f"the index declares no metadata field {field!r}",
            f"declared: {', '.join(sorted(fields)) or 'none'}",
        )
    return f"{METADATA}.{field}" if paths is None else paths[field]


def _check_numbers(node: Eq | In | Range | Exists) -> None:
    """JSON has neither NaN nor infinity; null in their place would be no condition."""
    if isinstance(node, Range):
        values: list[Any] = [node.gte, node.gt, node.lte, node.lt]
    elif isinstance(node, Eq):
        values = [node.value]
    else:
        values = list(node.values) if isinstance(node, In) else []
    for value in values:
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{value} as a value of {node.field!r}", "give a finite number")
