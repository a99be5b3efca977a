"""Every filter means the same in Milvus, server and Lite, as its definition says."""

from __future__ import annotations

import numpy as np
import pytest

from steelyard.errors import InputError
from steelyard.plugin.engine import Engine, Generation, SearchIndex
from steelyard.plugin.filters import And, Eq, Filter, In, Not, Or, Range
from steelyard.types import Document, EncodedDocuments, SparseVectors, l2_normalise
from tests.filter_cases import CASES, FIELDS, METADATA, holds

pytest_plugins = ["tests.servers.milvus"]

NOTHING = (np.zeros(0, np.int32), np.zeros(0, np.float32))
DENSE = l2_normalise(np.random.default_rng(1).normal(size=(len(METADATA), 8)).astype(np.float32))


def filled(engine: Engine) -> SearchIndex:
    """An index of one document for each line of ``METADATA``."""
    made = Generation(
        f"{engine.alias}_20260101000000_00000001",
        "dense-x",
        "sparse-x",
        "pack-x",
        "content",
        8,
        50,
        100.0,
        FIELDS,
        ("dense",),
    )
    documents = [Document(f"d{i}", "text", metadata=values) for i, values in enumerate(METADATA)]
    sparse = SparseVectors.from_rows([NOTHING] * len(documents), 50)
    engine.create(made)
    engine.upsert(made, EncodedDocuments(documents, DENSE, sparse))
    engine.seal(made)
    index = engine.open(made)
    stored = index.get([document.id for document in documents])
    assert {i: dict(one.document.metadata) for i, one in stored.items()} == {
        document.id: document.metadata for document in documents
    }
    return index


@pytest.fixture(params=["lite", pytest.param("server", marks=pytest.mark.milvus)])
def index(request: pytest.FixtureRequest) -> SearchIndex:
    fixture = {"lite": "engine", "server": "milvus_engine"}[request.param]
    return filled(request.getfixturevalue(fixture))


def test_the_truth_table(index: SearchIndex) -> None:
    wrong = []
    for case in CASES:
        expected = {f"d{i}" for i, values in enumerate(METADATA) if holds(case, values)}
        (found,) = index.dense.search(DENSE[:1], len(METADATA), filter=case)
        if set(found.ids) != expected:
            wrong.append((case, sorted(set(found.ids)), sorted(expected)))
    assert wrong == []


@pytest.mark.parametrize(
    ("condition", "message"),
    [
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
    ],
)
def test_conditions_that_cannot_be(engine: Engine, condition: Filter, message: str) -> None:
    index = filled(engine)
    with pytest.raises(InputError, match=message):
        index.dense.search(DENSE[:1], 3, filter=condition)


def test_a_tenant_cannot_be_escaped(index: SearchIndex) -> None:
    hostile = ['a") or (m_brand != "', "a' or '1' == '1", 'a"\n or id != "', "\\", '\\"']
    for text in hostile:
        (found,) = index.dense.search(DENSE[:1], len(METADATA), filter=Eq("brand", text))
        assert found.ids == []
        (found,) = index.dense.search(DENSE[:1], len(METADATA), filter=In("brand", [text]))
        assert found.ids == []


def test_ids_are_escaped(index: SearchIndex) -> None:
    assert index.get(['d1"] or id in ["d2', "d1'", "\\"]) == {}
    assert set(index.get(["d1", "nobody"])) == {"d1"}
