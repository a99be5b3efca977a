"""OpenSearch through the engine layer, on a real node: both arms, filters, generations, errors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from steelyard.errors import EngineError, InputError
from steelyard.plugin.engine import Candidates, Engine
from steelyard.plugin.filters import And, Eq, Exists, Filter, In, Not, Or, Range
from steelyard.types import EncodedDocuments, SparseVectors
from tests.servers.opensearch_node import ask
from tests.servers.opensearch_words import FLOAT32, Opener, Words, agree
from tests.test_milvus_lite import BRANDS, documents

pytest_plugins = ["tests.servers.opensearch", "tests.servers.opensearch_alias"]
pytestmark = [pytest.mark.opensearch]


@pytest.fixture
def filled(opener: Opener, named: Any) -> Engine:
    engine = opener(Words())
    engine.create(named())
    engine.upsert(named(), documents(40))
    engine.seal(named())
    engine.publish(named())
    return engine


def test_what_is_stored_comes_back(filled: Engine, named: Any) -> None:
    found = filled.resolve()
    assert found == named()
    index, content = filled.open(named()), documents(40)
    assert index.count() == 40
    stored = index.get(["d7", "nobody", "d4"], vectors=True)
    assert set(stored) == {"d7", "d4"}
    for identifier, row in (("d7", 7), ("d4", 4)):
        assert stored[identifier].document == content.documents[row]
        np.testing.assert_array_equal(stored[identifier].dense, content.dense[row])
    assert index.get(["d7"])["d7"].dense is None
    assert index.get([]) == {}
    exported = index.export()
    order = {document.id: row for row, document in enumerate(exported.documents)}
    rows = [order[document.id] for document in content.documents]
    np.testing.assert_array_equal(exported.dense[rows], content.dense)
    sparse = exported.sparse.select(rows)
    np.testing.assert_array_equal(sparse.ids, content.sparse.ids)
    np.testing.assert_array_equal(
        sparse.weights, np.floor(content.sparse.weights * np.float32(100))
    )


def test_both_arms_are_inner_products(filled: Engine, named: Any) -> None:
    index, content = filled.open(named()), documents(40)
    queries = np.vstack([content.dense[:3] * 3, np.zeros((1, 8), np.float32)])
    answers = index.dense.search(queries, 40)
    assert answers[3].ids == []
    for query, answer in zip(queries[:3], answers, strict=False):
        products = content.dense @ query
        assert products.min() < 0
        expected = Candidates([d.id for d in content.documents], products.astype(np.float64))
        agree(answer, expected, 1e-6)
    page = index.dense.search(queries[:1], 4, offset=3)[0]
    assert page.ids == answers[0].ids[3:7]

    impacts = np.floor(content.sparse.to_csr().toarray() * np.float32(100)) / 100
    rows = [
        (np.arange(50, dtype=np.int32), np.linspace(0.01, 200, 50, dtype=np.float32)),
        (np.zeros(0, np.int32), np.zeros(0, np.float32)),
        (np.array([3], np.int32), np.array([1e-42], np.float32)),
        (np.arange(10, dtype=np.int32), np.ones(10, np.float32)),
    ]
    found = index.sparse.search(SparseVectors.from_rows(rows, 50), 40)
    assert found[1].ids == found[2].ids == []
    for answer, (ids, weights) in ((found[0], rows[0]), (found[3], rows[3])):
        sums = impacts[:, ids] @ weights
        positive = {f"d{i}": s for i, s in enumerate(sums.tolist()) if s > 0}
        best = Candidates(list(positive), np.array(list(positive.values())))
        agree(answer, best, FLOAT32 * sums.max())


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Eq("brand", BRANDS[1]), lambda d: d.get("brand") == BRANDS[1]),
        (In("brand", BRANDS[1:]), lambda d: d.get("brand") in BRANDS[1:]),
        (In("stock", [3, 5]), lambda d: d.get("stock") in (3, 5)),
        (Range("price", gte=5, lt=10), lambda d: 5 <= d.get("price", -1) < 10),
        (Range("stock", gte=3, gt=5, lte=9, lt=20), lambda d: 5 < d.get("stock", -1) <= 9),
        (Exists("price"), lambda d: "price" in d),
        (Not(Exists("price")), lambda d: "price" not in d),
        (Not(Eq("brand", "a")), lambda d: d.get("brand") != "a"),
        (
            And([Eq("sale", True), Range("stock", gt=10)]),
            lambda d: d.get("sale") is True and d.get("stock", 0) > 10,
        ),
        (
            Or([Range("stock", lte=3), Eq("brand", "a")]),
            lambda d: d.get("stock", 99) <= 3 or d.get("brand") == "a",
        ),
    ],
)
def test_filters_act_inside_both_arms(
    filled: Engine, named: Any, condition: Filter, expected: Any
) -> None:
    index, content = filled.open(named()), documents(40)
    wanted = {d.id for d in content.documents if expected(dict(d.metadata))}
    assert 0 < len(wanted) < 40
    found = index.dense.search(content.dense[:1], 40, filter=condition)[0]
    assert set(found.ids) == wanted
    few = index.dense.search(content.dense[:1], 2, filter=condition)[0]
    assert few.ids == found.ids[:2]
    everything = SparseVectors.from_rows(
        [(np.arange(50, dtype=np.int32), np.ones(50, np.float32))], 50
    )
    with_terms = {f"d{i}" for i in range(40) if i % 4}
    assert set(index.sparse.search(everything, 40, filter=condition)[0].ids) == wanted & with_terms


def test_filters_that_cannot_be(filled: Engine, named: Any) -> None:
    index, dense = filled.open(named()), documents(1).dense
    assert index.dense.search(dense, 3, filter=In("brand", []))[0].ids == []
    for condition, message in (
        (Eq("colour", "red"), "no metadata field 'colour'"),
        (And([]), "an empty And"),
        (Range("price"), "without a bound"),
        (In("brand", ["x"] * 70_000), "70,000 values"),
        (Eq("price", "abc"), "'price' is of type float, 'abc' is not"),
    ):
        with pytest.raises(InputError, match=message):
            index.dense.search(dense, 3, filter=condition)


def test_an_upsert_replaces_and_a_delete_removes(filled: Engine, named: Any) -> None:
    content = documents(40)
    newer = replace(content.documents[7], text="newer")
    batch = EncodedDocuments([newer], content.dense[7:8], content.sparse.select([7]))
    filled.upsert(named(), batch)
    filled.delete(named(), ["d3", "nobody"])
    filled.seal(named())
    index = filled.open(named())
    assert index.count() == 39
    assert index.get(["d7"])["d7"].document.text == "newer"
    assert "d3" not in index.dense.search(content.dense[3:4], 40)[0].ids


def test_deletes_from_an_index_that_is_gone(opener: Opener, named: Any) -> None:
    engine = opener(Words())
    engine.create(named())
    engine.drop(named())
    with pytest.raises(EngineError, match="is not in this cluster, so nothing can be written"):
        engine.delete(named(), ["d1"])


def test_ids_of_any_characters(opener: Opener, named: Any) -> None:
    ids = [
        "o'brien",
        'say "x"',
        "a\\'b",
        "new\nline",
        "_all",
        "*",
        "../x?y=1#z",
        "é🙂",
        "%2F",
        " ",
    ]
    ids.append("é" * 256)
    content = documents(len(ids))
    titled = [replace(d, id=i) for d, i in zip(content.documents, ids, strict=True)]
    engine = opener(Words())
    engine.create(named())
    engine.upsert(named(), EncodedDocuments(titled, content.dense, content.sparse))
    engine.seal(named())
    index = engine.open(named())
    assert set(index.get(ids)) == set(ids)
    assert set(index.dense.search(content.dense[:1], 20)[0].ids) == set(ids)
    assert {d.id for d in index.export().documents} == set(ids)
    for left, identifier in zip(range(len(ids) - 1, -1, -1), ids, strict=True):
        engine.delete(named(), [identifier])
        engine.seal(named())
        assert index.count() == left


def test_refused_documents_are_named(opener: Opener, named: Any) -> None:
    engine, content = opener(Words()), documents(40)
    engine.create(named())
    engine.create(named())  # the same again, as after an answer that was lost
    with pytest.raises(EngineError, match="already exists"):
        engine.create(replace(named(), content="another"))
    wrong = [
        replace(d, metadata={"stock": "many"}) if i in (3, 5) else d
        for i, d in enumerate(content.documents)
    ]
    with pytest.raises(EngineError, match=r"refuses 2 of 40 documents: 'd3': .*stock.*many"):
        engine.upsert(named(), EncodedDocuments(wrong, content.dense, content.sparse))
    long = [replace(content.documents[0], id="x" * 513)]
    batch = EncodedDocuments(long, content.dense[:1], content.sparse.select([0]))
    with pytest.raises(EngineError, match=r"the id .xxx.* has 513 bytes, engines take 1 to 512"):
        engine.upsert(named(), batch)


def test_the_alias_moves_and_what_it_stands_for_stays(filled: Engine, named: Any) -> None:
    newer = named(2)
    filled.create(newer)
    filled.upsert(newer, documents(3))
    assert filled.resolve() == named()
    filled.publish(newer)
    filled.publish(newer)
    assert filled.resolve() == newer
    assert filled.generations() == [newer, named()]
    with pytest.raises(EngineError, match="so it stays"):
        filled.drop(newer)
    reader = filled.open(named())
    filled.drop(named())
    filled.drop(named())
    assert filled.generations() == [newer]
    for reading in (lambda: reader.get(["d1"]), reader.count, reader.export):
        with pytest.raises(EngineError, match="index_not_found"):
            reading()
    with pytest.raises(EngineError, match="index_not_found"):
        reader.dense.search(documents(1).dense, 3)
    with pytest.raises(EngineError, match="not in this cluster"):
        filled.open(named())
    with pytest.raises(EngineError, match="not in this cluster"):
        filled.upsert(named(), documents(3))
    assert filled.generations() == [newer]
    with pytest.raises(EngineError, match="index_not_found"):
        filled.publish(named(3))
    assert filled.resolve() == newer
    with pytest.raises(EngineError, match="is no generation of"):
        filled.drop(replace(newer, name="*"))


def test_wrong_sizes_are_refused_with_both_numbers(filled: Engine, named: Any) -> None:
    content = documents(2)
    narrow = EncodedDocuments(content.documents, content.dense[:, :4].copy(), content.sparse)
    with pytest.raises(EngineError, match=r"vectors of 4 dimensions .* which has 8"):
        filled.upsert(named(), narrow)
    index = filled.open(named())
    with pytest.raises(EngineError, match=r"queries of 4 dimensions .* which has 8"):
        index.dense.search(content.dense[:, :4].copy(), 3)
    with pytest.raises(EngineError, match=r"queries of 7 columns .* which has 50"):
        index.sparse.search(SparseVectors.from_rows([], 7), 3)
    with pytest.raises(InputError, match="OpenSearch gives 1 to 10,000"):
        index.dense.search(content.dense, 9000, offset=1001)


def test_another_tokenizer_is_recognised(filled: Engine, opener: Opener, named: Any) -> None:
    class Others(Words):
        texts = tuple(f"o{i}" for i in range(50))

    with pytest.raises(EngineError, match="token 2 is 'o2' in the pack's tokenizer and ' ' in"):
        opener(Others()).open(named())
    without = opener(None).open(named())
    assert without.count() == 40
    assert len(without.dense.search(documents(1).dense, 5)[0].ids) == 5
    with pytest.raises(EngineError, match="opened without a vocabulary"):
        without.sparse.search(documents(2).sparse, 5)


def test_indexes_of_someone_else_are_not_taken_for_ours(
    opensearch_url: str, filled: Engine, opener: Opener, alias: str, named: Any
) -> None:
    ask(opensearch_url, "PUT", f"/{alias}_theirs", {"aliases": {alias: {}}})
    with pytest.raises(EngineError, match="stands for 2 indexes") as caught:
        opener(None).resolve()
    assert caught.value.hint == "remove it from all but one"
    filled.delete(named(), ["d1"])
    ask(opensearch_url, "POST", "/_aliases", {
        "actions": [{"remove": {"index": named().name, "alias": alias}}]
    })  # fmt: skip
    with pytest.raises(EngineError, match="does not carry Steelyard's description"):
        filled.publish(named())
    ask(opensearch_url, "DELETE", f"/{alias}_theirs")
    ask(opensearch_url, "PUT", f"/{alias}", {})
    with pytest.raises(EngineError, match="is an index here, not an alias"):
        filled.publish(named())


def test_long_queries(opensearch_url: str, opener: Opener, named: Any) -> None:
    class Many:
        def id_to_token(self, id: int, /) -> str | None:
            return f"t{id}"

        def token_to_id(self, token: str, /) -> int | None:
            return int(token[1:])

    wide = replace(named(), vocabulary_size=5000, fields={})
    engine = opener(Many())
    engine.create(wide)
    content = documents(2)
    ids = np.arange(5000, dtype=np.int32)
    rows = [(ids[:2000], np.full(2000, 2, np.float32)), (ids[2000:], np.ones(3000, np.float32))]
    plain = [replace(d, metadata={}) for d in content.documents]
    batch = EncodedDocuments(plain, content.dense, SparseVectors.from_rows(rows, 5000))
    assert engine.upsert(wide, batch).clipped == 0
    engine.seal(wide)
    query = SparseVectors.from_rows([(ids, (1 + ids / 5000).astype(np.float32))], 5000)
    index = engine.open(wide)
    (found,) = index.sparse.search(query, 5)
    heaviest = query.heaviest(512).row(0)[1]
    assert found.ids == ["d1"]
    assert found.scores[0] == pytest.approx(float(heaviest.sum()), rel=1e-6)
    setting = "indices.query.bool.max_clause_count"
    ask(opensearch_url, "PUT", "/_cluster/settings", {"transient": {setting: 100}})
    try:
        with pytest.raises(EngineError, match="cannot search") as caught:
            index.sparse.search(query, 5)
        assert "raise indices.query.bool.max_clause_count" in caught.value.hint
    finally:
        ask(opensearch_url, "PUT", "/_cluster/settings", {"transient": {setting: None}})
