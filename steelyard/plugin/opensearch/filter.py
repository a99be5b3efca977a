"""The filter tree as an OpenSearch query."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steelyard.errors import InputError
from steelyard.plugin.filters import And, Eq, Exists, Filter, In, Not, Or, Range, check_filter
from steelyard.plugin.opensearch.layout import METADATA

MAX_TERMS = 65_536
"""``index.max_terms_count``: values of one ``terms`` query."""


def opensearch_filter(
    filter: Filter, fields: Mapping[str, str], paths: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Compile a filter.

    Args:
        filter: the condition.
        fields: that the index declares, and their types.
        paths: where they are; None is where Steelyard puts them.

    Raises:
        InputError: a filter that cannot be (see ``check_filter``), or more values than OpenSearch
            takes.
    """
    check_filter(filter, fields)
    return _compile(filter, paths)


def _compile(node: Filter, paths: Mapping[str, str] | None) -> dict[str, Any]:
    if isinstance(node, And | Or):
        clauses = [_compile(clause, paths) for clause in node.clauses]
        if isinstance(node, And):
            return {"bool": {"filter": clauses}}
        return {"bool": {"should": clauses, "minimum_should_match": 1}}
    if isinstance(node, Not):
        return {"bool": {"must_not": [_compile(node.clause, paths)]}}
    path = f"{METADATA}.{node.field}" if paths is None else paths[node.field]
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
    return ranges[0] if len(ranges) == 1 else {"bool": {"filter": ranges}}
