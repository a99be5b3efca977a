"""Conditions on metadata and what they mean, whatever engine they are compiled for."""

from __future__ import annotations

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
    *(Eq("stock", value) for value in (0, 5, 5.0, 5.5, 2**62, 2**63 - 1)),
    *(Eq("price", value) for value in (0, 5, 5.5, -2.5)),
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
    Range("stock", gte=-(2**62), lte=2**63 - 1),
    Range("stock", gte=1e18),
    Range("price", gte=-2.5, gt=-3, lte=5, lt=5.5),
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


def nested(depth: int) -> Filter:
    """Not of Not of Not ..."""
    node: Filter = Eq("sale", True)
    for _ in range(depth):
        node = Not(node)
    return node


IMPOSSIBLE: list[tuple[Filter, str]] = [
    (Eq("colour", "red"), "no metadata field 'colour'"),
    (Not(Eq("colour", "red")), "no metadata field 'colour'"),
    (And([]), "an empty And filter"),
    (Not(Or([])), "an empty Or filter"),
    (Range("stock"), "a range on 'stock' without a bound"),
    (Range("sale", gte=True), "a range on 'sale', which is true or false"),
    (Eq("stock", "5"), "'stock' is of type int, '5' is not"),
    (Eq("stock", True), "'stock' is of type int, True is not"),
    (Eq("sale", 1), "'sale' is of type bool, 1 is not"),
    (In("brand", ["a", 5]), "'brand' is of type keyword, 5 is not"),
    (Range("price", gte="x"), "'price' is of type float, 'x' is not"),
    (Eq("price", float("nan")), "nan as a value of 'price'"),
    (Range("stock", lt=float("inf")), "inf as a value of 'stock'"),
    (Eq("stock", 2**63), "an integer of more than 64 bits"),
    (Range("stock", gt=-1e30), "an integer of more than 64 bits"),
    (nested(5000), "nested more"),
]
"""Conditions that every engine refuses, and with which words."""
