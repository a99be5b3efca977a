"""Filters as JSON, for command lines and services: ``{"range": {"price": {"lt": 10}}}``.

One key an object: ``eq``, ``in``, ``range``, ``exists``, ``and``, ``or``, ``not``.
"""

from __future__ import annotations

import json
from typing import Any

from steelyard.errors import InputError
from steelyard.plugin.filters import MAX_DEPTH, And, Eq, Exists, Filter, In, Not, Or, Range, Scalar

_BOUNDS = ("gte", "gt", "lte", "lt")
_EXAMPLE = '{"and": [{"eq": {"brand": "a"}}, {"range": {"price": {"gte": 5, "lt": 10}}}]}'


def parse_filter(text: str) -> Filter:
    """Read a filter.

    Raises:
        InputError: it is no JSON, or no filter; what was expected where.
    """
    return _read(read_filter(text), 0)


def read_filter(text: str) -> Any:
    """The JSON value of a filter, which may still be no filter.

    Raises:
        InputError: it is no JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the filter is not JSON: {error}", f"for example {_EXAMPLE}") from error


def _read(value: Any, depth: int) -> Filter:
    if depth > MAX_DEPTH:
        raise InputError(f"the filter is nested more than {MAX_DEPTH} deep")
    if not isinstance(value, dict) or len(value) != 1:
        raise _bad(value, "an object of one key")
    ((kind, inside),) = value.items()
    if kind in ("and", "or"):
        if not isinstance(inside, list) or not inside:
            raise _bad(inside, f"a list of filters in {kind!r}")
        clauses = [_read(clause, depth + 1) for clause in inside]
        return And(clauses) if kind == "and" else Or(clauses)
    if kind == "not":
        return Not(_read(inside, depth + 1))
    if kind == "exists":
        if not isinstance(inside, str):
            raise _bad(inside, "a field's name in 'exists'")
        return Exists(inside)
    if kind not in ("eq", "in", "range"):
        raise _bad(kind, "eq, in, range, exists, and, or, not")
    if not isinstance(inside, dict) or len(inside) != 1:
        raise _bad(inside, f"one field and its value in {kind!r}")
    ((field, what),) = inside.items()
    if kind == "eq":
        return Eq(field, _scalar(what))
    if kind == "in":
        if not isinstance(what, list) or not what:
            raise _bad(what, "a list of values in 'in'")
        return In(field, [_scalar(one) for one in what])
    if not isinstance(what, dict) or not what or set(what) - set(_BOUNDS):
        raise _bad(what, f"some of {', '.join(_BOUNDS)} in 'range'")
    return Range(field, **{bound: _scalar(limit) for bound, limit in what.items()})


def _scalar(value: Any) -> Scalar:
    if not isinstance(value, (str, int, float)):
        raise _bad(value, "a string, a number, true or false")
    return value


def _bad(found: Any, expected: str) -> InputError:
    shown = json.dumps(found, default=str)
    return InputError(
        f"cannot read the filter at {shown:.80}: expected {expected}", f"for example {_EXAMPLE}"
    )
