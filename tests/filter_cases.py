"""Conditions on metadata and what they mean, whatever engine they are compiled for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from steelyard.plugin.filters import And, Eq, Exists, Filter, In, Not, Or, Range

FIELDS = {"brand": "keyword", "stock": "int", "price": "float", "sale": "bool", "id": "keyword"}

METADATA: list[dict[str, Any]] = [
    {},
    {"brand": "a", "stock": 0, "price": 0.0, "sale": False, "id": "x"},
    {"brand": "", "stock": 5, "price": 5.0, "sale": True, "id": ""},
    {"brand": 'b"q', "stock": -3, "price": -2.5},
    {"brand": "c\\s", "sale": False},
    {"stock": 6, "price": 1e9, "id": "y"},
    {"brand": "é🙂\n", "stock": 2**62, "sale": True},
    {"price": 5.5, "sale": True, "id": "%"},
    {"brand": "ab", "stock": 1},
]
"""Of one document each: values that look like nothing, and no values."""

PLAIN: list[Filter] = [
    *(Eq("brand", value) for value in ("a", "", 'b"q', "c\\s", "é🙂\n", "nobody")),
    *(Eq("stock", value) for value in (0, 5, 5.0, 5.5, 2**62, 2**70, -(2**70))),
    *(Eq("price", value) for value in (0, 5, 5.5, -2.5, math.inf)),
    Eq("sale", True),
    Eq("sale", False),
    Eq("id", "x"),
    In("brand", ["a", "", "nobody"]),
    In("brand", []),
    In("stock", [0, 5.0, 5.5, 6]),
    In("price", [5, 5.5]),
    In("sale", [True]),
    In("sale", [True, False]),
    Range("stock", gte=0, lt=6),
    Range("stock", gt=0.5, lte=5.5),
    Range("stock", gte=-math.inf, lte=2**70),
    Range("stock", gt=math.inf),
    Range("stock", gt=-(2**70), lt=math.inf),
    Range("stock", gte=2**70),
    Range("price", gt=-math.inf, lt=math.inf),
    Range("price", gte=-2.5, gt=-3, lte=5, lt=5.5),
    Range("price", lt=-math.inf),
    Range("brand", gte="a", lt="b"),
    Range("brand", gt=""),
    *(Exists(field) for field in FIELDS),
]

CASES: list[Filter] = [
    *PLAIN,
    *(Not(one) for one in PLAIN),
    *(Not(Not(one)) for one in PLAIN[:3]),
    And([Eq("sale", True), Range("stock", gt=1)]),
    Or([Range("stock", lte=0), Eq("brand", "a")]),
    Not(And([Eq("sale", True), Range("stock", gt=1)])),
    Not(Or([Range("stock", lte=0), Eq("brand", "a")])),
    And([Not(Eq("brand", "a")), Not(Exists("sale"))]),
    Or([Not(Exists("brand")), And([Eq("sale", False), Not(Eq("stock", 0))])]),
    Not(And([Not(Eq("brand", "a")), Or([Exists("price"), Not(In("stock", [1]))])])),
]


def holds(filter: Filter, metadata: Mapping[str, Any]) -> bool:
    """What a filter means: no condition holds on a value that is missing, its negation does."""
    if isinstance(filter, And):
        return all(holds(clause, metadata) for clause in filter.clauses)
    if isinstance(filter, Or):
        return any(holds(clause, metadata) for clause in filter.clauses)
    if isinstance(filter, Not):
        return not holds(filter.clause, metadata)
    value = metadata.get(filter.field)
    if value is None:
        return False
    if isinstance(filter, Exists):
        return True
    if isinstance(filter, Eq):
        return bool(value == filter.value)
    if isinstance(filter, In):
        return value in filter.values
    bounds = (
        filter.gte is None or value >= filter.gte,
        filter.gt is None or value > filter.gt,
        filter.lte is None or value <= filter.lte,
        filter.lt is None or value < filter.lt,
    )
    return all(bounds)
