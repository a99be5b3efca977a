"""Filters over metadata in memory, against the plain meaning of each condition."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from steelyard.errors import EngineError, InputError
from steelyard.plugin.exact import ExactIndex
from steelyard.plugin.filter_mask import FilterMasks
from steelyard.plugin.filters import And, Eq, Exists, Filter, In, Not, Or, Range
from steelyard.plugin.quantise import quantise
from steelyard.types import EncodedDocuments, SparseVectors
from tests.lucene_documents import BRANDS, FIELDS, documents, generation

Meaning = Callable[[Mapping[str, Any]], bool]

CONDITIONS: list[tuple[Filter, Meaning]] = [
    (Eq("brand", BRANDS[1]), lambda d: d.get("brand") == BRANDS[1]),
    (Eq("brand", "b"), lambda d: False),
    (In("brand", BRANDS[1:]), lambda d: d.get("brand") in BRANDS[1:]),
    (In("brand", []), lambda d: False),
    (In("stock", [3, 5, 2**62]), lambda d: d.get("stock") in (3, 5)),
    (Eq("stock", 3.0), lambda d: d.get("stock") == 3),
    (Range("price", gte=5, lt=10), lambda d: 5 <= d.get("price", -1) < 10),
    (Range("price", gt=5, lte=10), lambda d: 5 < d.get("price", -1) <= 10),
    (Range("stock", lt=2.5), lambda d: d.get("stock", 99) < 2.5),
    (Range("brand", gt="a"), lambda d: d.get("brand", "") > "a"),
    (Range("brand", gte="a", lt="c"), lambda d: "a" <= d.get("brand", "") < "c"),
    (Range("brand", lte=BRANDS[1]), lambda d: "brand" in d and d["brand"] <= BRANDS[1]),
    (Exists("price"), lambda d: "price" in d),
    (Not(Exists("price")), lambda d: "price" not in d),
    (Not(Eq("brand", "a")), lambda d: d.get("brand") != "a"),
    (Not(Range("stock", gt=10)), lambda d: not d.get("stock", 0) > 10),
    (Eq("sale", False), lambda d: d.get("sale") is False),
    (
        And([Eq("sale", True), Range("stock", gt=10)]),
        lambda d: d.get("sale") is True and d.get("stock", 0) > 10,
    ),
    (
        Or([Range("stock", lte=3), Eq("brand", "a")]),
        lambda d: d.get("stock", 99) <= 3 or d.get("brand") == "a",
    ),
]


def everything() -> SparseVectors:
    """One query that has every term."""
    return SparseVectors.from_rows([(np.arange(50, dtype=np.int32), np.ones(50, np.float32))], 50)


def exact() -> tuple[ExactIndex, EncodedDocuments]:
    content = documents(40)
    impacts = quantise(content.sparse, 100.0)[0]
    held = EncodedDocuments(content.documents, content.dense, impacts)
    return ExactIndex(generation(), held), held


@pytest.mark.parametrize(("condition", "meaning"), CONDITIONS)
def test_filters_act_inside_both_arms_of_exact_search(condition: Filter, meaning: Meaning) -> None:
    index, content = exact()
    wanted = {d.id for d in content.documents if meaning(d.metadata)}
    found = index.dense.search(content.dense[:1], 40, filter=condition)[0]
    assert set(found.ids) == wanted
    best = [i for i in index.dense.search(content.dense[:1], 40)[0].ids if i in wanted]
    assert index.dense.search(content.dense[:1], 3, filter=condition, offset=1)[0].ids == best[1:4]
    with_terms = {f"d{i}" for i in range(40) if i % 4}
    sparse = index.sparse.search(everything(), 40, filter=condition)[0]
    assert set(sparse.ids) == wanted & with_terms


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (Eq("colour", "red"), "no metadata field 'colour'"),
        (Eq("price", "red"), "'price' is of type float, 'red' is not"),
        (Eq("price", True), "'price' is of type float, True is not"),
        (In("brand", ["a", 3]), "'brand' is of type keyword, 3 is not"),
        (Range("stock", gt="3"), "'stock' is of type int, '3' is not"),
        (Eq("sale", 1), "'sale' is of type bool, 1 is not"),
        (Range("stock"), "without a bound"),
        (And([]), "an empty And filter"),
        (Not(Or([])), "an empty Or filter"),
    ],
)
def test_filters_that_mean_nothing_are_refused(condition: Filter, message: str) -> None:
    index, content = exact()
    with pytest.raises(InputError, match=message):
        index.dense.search(content.dense[:1], 3, filter=condition)


def test_a_field_is_read_once_and_only_when_it_is_named() -> None:
    read = []

    def column(field: str) -> list[Any]:
        read.append(field)
        return [1, None, 3]

    masks = FilterMasks(FIELDS, 3, column)
    assert read == []
    assert masks.mask(Range("stock", gt=1)).tolist() == [False, False, True]
    assert masks.mask(Exists("stock")).tolist() == [True, False, True]
    assert read == ["stock"]


def test_exact_search_takes_many_documents_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    index, content = exact()
    queries = np.vstack([content.dense[:5], np.zeros((1, 8), np.float32)])
    whole = index.dense.search(queries, 7, filter=Not(Eq("brand", "a")), offset=2)
    monkeypatch.setattr("steelyard.plugin.flat._DOCUMENTS", 7)
    monkeypatch.setattr("steelyard.plugin.flat._QUERIES", 2)
    parts = index.dense.search(queries, 7, filter=Not(Eq("brand", "a")), offset=2)
    assert [answer.ids for answer in parts] == [answer.ids for answer in whole]
    assert parts[5].ids == []
    with pytest.raises(EngineError, match="longer than its time limit"):
        index.dense.search(queries, 7, timeout=-1)
    with pytest.raises(EngineError, match=r"queries of 4 dimensions .* which has 8"):
        index.dense.search(queries[:, :4].copy(), 7)
    with pytest.raises(InputError, match=r"offset -1 \+ k 7"):
        index.dense.search(queries, 7, offset=-1)
