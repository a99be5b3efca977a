"""Indexes of vectors that someone else wrote, taken over on a real node."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from steelyard.errors import EngineError
from steelyard.plugin.abilities import Adopts, Highlights
from steelyard.plugin.engine import Candidates, Engine, Generation
from steelyard.plugin.filters import And, Eq, Exists, Not, Range
from steelyard.types import l2_normalise
from tests.servers.opensearch_node import ask
from tests.servers.opensearch_words import Opener, Words, agree
from tests.test_milvus_lite import documents

pytest_plugins = ["tests.servers.opensearch", "tests.servers.opensearch_alias"]
pytestmark = [pytest.mark.opensearch]

COUNT = 60
FIELDS = {"maker": "keyword", "price": "float", "sold": "bool"}
COLUMNS = {"maker": "brand.raw", "price": "offer.price", "text": "body", "title": "heading"}


class Theirs:
    """An index of theirs, whose name and mapping are nothing of ours.

    Attributes:
        vectors: of its documents ``doc/0``, ``doc/1``, ...
    """

    def __init__(self, url: str, name: str) -> None:
        self.url, self.name = url, name
        rng = np.random.default_rng(2)
        self.vectors = l2_normalise(rng.normal(size=(COUNT, 8)).astype(np.float32))

    def make(
        self,
        *,
        space: str = "innerproduct",
        length: float = 1.0,
        shards: int = 1,
        routing: str | None = None,
        **more: Any,
    ) -> None:
        vector = {
            "type": "knn_vector",
            "dimension": 8,
            "method": {"name": "hnsw", "engine": "lucene", "space_type": space},
        }
        properties = {
            "embedding": vector,
            "number": {"type": "keyword"},
            "heading": {"type": "text"},
            "body": {"type": "text"},
            "brand": {"type": "text", "fields": {"raw": {"type": "keyword"}}},
            "offer": {"properties": {"price": {"type": "double"}}},
            "sold": {"type": "boolean"},
            **more,
        }
        meta = {"owner": "them"}
        ask(self.url, "PUT", f"/{self.name}", {
            "settings": {"index": {"knn": True, "number_of_shards": shards}},
            "mappings": {"properties": properties, "_meta": meta},
        })  # fmt: skip
        lines = []
        for row in range(COUNT):
            source: dict[str, Any] = {
                "embedding": (self.vectors[row] * length).tolist(),
                "number": f"n{row}",
                "body": f"body of {row}",
                "offer.price" if row % 2 else "offer": row / 2 if row % 2 else {"price": row / 2},
                "sold": row % 3 == 0,
            }
            if row % 4:
                source |= {"heading": [f"heading {row}", "more"], "brand": f"Maker {row % 5}"}
            action = {"_id": f"doc/{row}"} | ({} if routing is None else {"routing": routing})
            lines += [json.dumps({"index": action}), json.dumps(source)]
        ask(self.url, "POST", f"/{self.name}/_bulk?refresh=true", "\n".join(lines) + "\n")

    def change(self, row: int, **values: Any) -> None:
        """Give one document other values."""
        lines = [json.dumps({"update": {"_id": f"doc/{row}"}}), json.dumps({"doc": values})]
        ask(self.url, "POST", f"/{self.name}/_bulk?refresh=true", "\n".join(lines) + "\n")

    @property
    def mapping(self) -> dict[str, Any]:
        found: dict[str, Any] = ask(self.url, "GET", f"/{self.name}")[self.name]
        return found


@pytest.fixture
def theirs(opensearch_url: str, alias: str) -> Iterator[Theirs]:
    made = Theirs(opensearch_url, f"their.vectors-{alias}_v2")
    yield made
    ask(opensearch_url, "DELETE", f"/{made.name}*")


def stamp(name: str, **changes: Any) -> Generation:
    values: dict[str, Any] = {"dims": 0, "fields": FIELDS, "columns": COLUMNS, **changes}
    return replace(
        Generation(name, "dense-x", "sparse-x", "pack-x", "", 8, 50, 100.0, arms=("dense",)),
        **values,
    )


def adopt(engine: Engine, generation: Generation) -> Generation:
    assert isinstance(engine, Adopts)
    stamped = engine.adopt(generation)
    engine.publish(stamped)
    return stamped


@pytest.mark.parametrize("space", ["innerproduct", "cosinesimil", "l2"])
def test_scores_are_inner_products(theirs: Theirs, opener: Opener, space: str) -> None:
    theirs.make(space=space)
    engine = opener(Words())
    stamped = adopt(engine, stamp(theirs.name))
    assert (stamped.dims, stamped.arms) == (8, ("dense",))
    assert stamped.columns == COLUMNS | {"dense": "embedding", "sold": "sold"}
    assert engine.resolve() == stamped
    assert engine.generations() == [stamped]
    assert theirs.mapping["mappings"]["_meta"]["owner"] == "them"
    index = engine.open(stamped)
    assert index.arms == ("dense", "match")
    queries = np.vstack(
        [theirs.vectors[:3], 3 * theirs.vectors[3:4], np.zeros((1, 8), np.float32)]
    )
    answers = index.dense.search(queries, COUNT)
    ids = [f"doc/{row}" for row in range(COUNT)]
    for query, answer in zip(queries[:4], answers, strict=False):
        products = (theirs.vectors @ query).astype(np.float64)
        agree(answer, Candidates(ids, products), 2e-6)
    assert answers[4].ids == []


def test_documents_filters_and_texts(theirs: Theirs, opener: Opener) -> None:
    theirs.make()
    engine = opener(Words())
    index = engine.open(adopt(engine, stamp(theirs.name)))
    assert index.count() == COUNT
    stored = index.get(["doc/5", "doc/8", "nobody"], vectors=True)
    assert set(stored) == {"doc/5", "doc/8"}
    five, eight = stored["doc/5"].document, stored["doc/8"].document
    assert (five.id, five.parent_id, five.title, five.text) == (
        "doc/5", "doc/5", "heading 5", "body of 5")  # fmt: skip
    assert five.metadata == {"maker": "Maker 0", "price": 2.5, "sold": False}
    assert (eight.title, eight.metadata) == ("", {"price": 4.0, "sold": False})
    np.testing.assert_array_equal(stored["doc/5"].dense, theirs.vectors[5])
    for condition, expected in (
        (Eq("maker", "Maker 0"), lambda row: row % 4 and row % 5 == 0),
        (Not(Eq("maker", "Maker 0")), lambda row: not (row % 4 and row % 5 == 0)),
        (And([Range("price", gte=5), Eq("sold", True)]), lambda row: row >= 10 and row % 3 == 0),
        (Exists("maker"), lambda row: row % 4),
    ):
        (found,) = index.dense.search(theirs.vectors[:1], COUNT, filter=condition)
        assert set(found.ids) == {f"doc/{row}" for row in range(COUNT) if expected(row)}
    (found,) = index.match.search(["heading 7"], 1)
    assert found.ids == ["doc/7"]
    assert isinstance(index, Highlights)
    assert index.highlight(["doc/7"], "heading 7")["doc/7"]["text"] == ["body of <em>7</em>"]
    exported = index.export()
    ids = [document.id for document in exported.documents]
    assert ids == sorted(f"doc/{row}" for row in range(COUNT))
    order = [int(identifier[4:]) for identifier in ids]
    np.testing.assert_array_equal(exported.dense, theirs.vectors[order])
    assert len(exported.sparse.ids) == 0


def test_a_column_of_ids(theirs: Theirs, opener: Opener) -> None:
    theirs.make()
    engine = opener(Words())
    stamped = adopt(engine, stamp(theirs.name, columns=COLUMNS | {"id": "number"}))
    index = engine.open(stamped)
    (found,) = index.dense.search(theirs.vectors[9:10], 1)
    assert found.ids == ["n9"]
    assert index.get(["n9", "doc/9"], vectors=True)["n9"].document.text == "body of 9"
    assert set(index.get(["n9", "doc/9"])) == {"n9"}
    assert isinstance(index, Highlights)
    assert set(index.highlight(["n3"], "body")) == {"n3"}
    assert index.export().documents[0].id == "n0"


def test_a_column_of_ids_that_is_a_multi_field(theirs: Theirs, opener: Opener) -> None:
    """It is searched as ``sku.raw`` and stands in the source as ``sku``."""
    theirs.make(sku={"type": "text", "fields": {"raw": {"type": "keyword", "ignore_above": 9}}})
    for row in range(COUNT):
        theirs.change(row, sku=f"S {row}")
    engine = opener(Words())
    columns = {"dense": "embedding", "id": "sku.raw", "text": "body"}
    index = engine.open(adopt(engine, stamp(theirs.name, fields={}, columns=columns)))
    (found,) = index.dense.search(theirs.vectors[9:10], 1)
    assert found.ids == ["S 9"]
    assert index.get(["S 9"])["S 9"].document.text == "body of 9"
    assert isinstance(index, Highlights)
    assert set(index.highlight(["S 3"], "body")) == {"S 3"}
    exported = [document.id for document in index.export().documents]
    assert exported == sorted(f"S {row}" for row in range(COUNT))
    theirs.change(9, sku="longer than is indexed")  # after the adoption: it has no id any more
    (found,) = index.dense.search(theirs.vectors[9:10], COUNT)
    assert len(found.ids) == len(found.scores) == COUNT - 1
    assert len(index.match.search(["body"], COUNT)[0].ids) == COUNT - 1
    assert len(index.export().documents) == COUNT - 1
    before = theirs.mapping
    with pytest.raises(EngineError, match=r"1 documents of index .* have no 'sku.raw'"):
        adopt(engine, stamp(theirs.name, fields={}, columns=columns))
    assert theirs.mapping == before


def test_documents_that_lie_where_their_routing_put_them(theirs: Theirs, opener: Opener) -> None:
    theirs.make(shards=5, routing="them")
    engine = opener(Words())
    columns = {"dense": "embedding"}
    index = engine.open(adopt(engine, stamp(theirs.name, fields={}, columns=columns)))
    (found,) = index.dense.search(theirs.vectors[:1], COUNT)
    assert len(found.ids) == COUNT
    assert set(index.get(found.ids)) == set(found.ids)


def test_the_alias_moves_to_it_and_off_it_and_it_stays(
    theirs: Theirs, opener: Opener, named: Any, opensearch_url: str
) -> None:
    theirs.make()
    engine = opener(Words())
    engine.create(named())
    engine.upsert(named(), documents(4))
    engine.seal(named())
    engine.publish(named())
    stamped = adopt(engine, stamp(theirs.name))
    assert engine.resolve() == stamped
    assert engine.generations() == [named(), stamped]
    assert adopt(engine, stamp(theirs.name)) == stamped  # again
    for refused in (
        lambda: engine.drop(stamped),
        lambda: engine.delete(stamped, ["doc/1"]),
        lambda: engine.upsert(stamped, documents(1)),
        lambda: engine.create(stamped),
        lambda: engine.seal(stamped),
    ):
        with pytest.raises(EngineError, match="an adopted index is only read"):
            refused()
    engine.publish(named())
    assert engine.generations() == [named()]
    assert theirs.mapping["aliases"] == {}
    with pytest.raises(EngineError, match="an adopted index is only read"):
        engine.drop(stamped)
    assert engine.open(stamped).count() == COUNT
    engine.publish(stamped)
    assert engine.resolve() == stamped
    engine.drop(named())
    assert engine.generations() == [stamped]


def test_an_alias_of_theirs_may_stand_for_it_already(
    theirs: Theirs, opener: Opener, alias: str
) -> None:
    theirs.make()
    ask(theirs.url, "PUT", f"/{theirs.name}/_alias/{alias}")
    engine = opener(Words())
    with pytest.raises(EngineError, match="does not carry Steelyard's description"):
        engine.resolve()
    assert adopt(engine, stamp(theirs.name)) == engine.resolve()


def test_sparse_vectors_of_theirs(theirs: Theirs, opener: Opener) -> None:
    """Token strings to impacts, as Steelyard writes them."""
    theirs.make(weights={"type": "rank_features"})
    lines = [
        json.dumps({"update": {"_id": "doc/3"}}),
        json.dumps({"doc": {"weights": {"t9": 200, "Ġx": 7}}}),
    ]
    ask(theirs.url, "POST", f"/{theirs.name}/_bulk?refresh=true", "\n".join(lines) + "\n")
    engine = opener(Words())
    both = stamp(theirs.name, arms=("dense", "sparse"), columns=COLUMNS | {"sparse": "weights"})
    stamped = adopt(engine, both)
    assert stamped.arms == ("dense", "sparse")
    index = engine.open(stamped)
    stored = index.get(["doc/3"], terms=True)["doc/3"].impacts
    assert stored is not None
    assert (stored[0].tolist(), stored[1].tolist()) == ([4, 9], [7.0, 200.0])
    query = documents(1).sparse.from_rows([(stored[0], np.array([1, 2], np.float32))], 50)
    (found,) = index.sparse.search(query, 3)
    assert found.ids == ["doc/3"]
    assert found.scores[0] == pytest.approx(4.07)
    nobody = stamp(theirs.name, arms=("dense", "sparse"), columns=COLUMNS)
    assert adopt(engine, nobody).arms == ("dense",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": {"dense": "vector"}}, r"has no column 'vector' for 'dense'"),
        (
            {"columns": {"dense": "heading"}},
            r"'heading' .* has type text, which cannot be",
        ),
        ({"dims": 9}, r"'embedding' .* have 8 dimensions, the pack's 9"),
        ({"columns": COLUMNS | {"maker": "brand"}}, r"'brand' .* type text, .* brand.keyword"),
        ({"columns": COLUMNS | {"price": "sold"}}, r"'sold' .* type boolean, which cannot be"),
        ({"columns": COLUMNS | {"id": "body"}}, r"'body' .* type text, which cannot be 'id'"),
        ({"fields": {"colour": "keyword"}}, r"has no column 'colour' for 'colour'"),
        ({"arms": ("sparse",)}, r"has no vectors that Steelyard searches"),
        ({"name": "their.*"}, r"cannot name an index"),
        ({"name": "a,b"}, r"cannot name an index"),
        ({"name": "../_all"}, r"cannot name an index"),
        ({"name": "_all"}, r"cannot name an index"),
        ({"name": "A"}, r"cannot name an index"),
        ({"name": "nobody"}, r"there is no index 'nobody'"),
    ],
)
def test_what_cannot_be_adopted(
    theirs: Theirs, opener: Opener, changes: dict[str, Any], message: str
) -> None:
    theirs.make()
    before, engine = theirs.mapping, opener(Words())
    with pytest.raises(EngineError, match=message):
        adopt(engine, stamp(**{"name": theirs.name, **changes}))
    assert theirs.mapping == before
    assert engine.resolve() is None


def test_vectors_that_are_something_else(theirs: Theirs, opener: Opener) -> None:
    theirs.make(length=3.0)
    engine = opener(Words())
    with pytest.raises(EngineError, match=r"not of length 1: there are lengths from 3 to 3"):
        adopt(engine, stamp(theirs.name))
    more = {"type": "knn_vector", "dimension": 8}
    ask(theirs.url, "PUT", f"/{theirs.name}/_mapping", {"properties": {"image": more}})
    with pytest.raises(EngineError, match=r"has 2 fields of type knn_vector: embedding, image"):
        adopt(engine, stamp(theirs.name))
    with pytest.raises(EngineError, match=r"no vector of index .* can be read back"):
        adopt(engine, stamp(theirs.name, columns=COLUMNS | {"dense": "image"}))
    assert engine.resolve() is None


def test_spaces_that_are_no_inner_product(theirs: Theirs, opener: Opener) -> None:
    theirs.make(image={
        "type": "knn_vector", "dimension": 8, "data_type": "byte",
        "method": {"name": "hnsw", "engine": "lucene", "space_type": "l2"},
    })  # fmt: skip
    engine = opener(Words())
    with pytest.raises(EngineError, match="are not floats of a known dimension"):
        adopt(engine, stamp(theirs.name, columns=COLUMNS | {"dense": "image"}))


def test_names_that_are_something_else(
    theirs: Theirs, opener: Opener, alias: str, named: Any
) -> None:
    theirs.make()
    engine = opener(Words())
    other = f"{theirs.name}.alias"
    ask(theirs.url, "PUT", f"/{theirs.name}/_alias/{other}")
    with pytest.raises(EngineError, match=f"is an alias here, of {theirs.name}"):
        adopt(engine, stamp(other))
    engine.create(named())
    with pytest.raises(EngineError, match="is a generation of"):
        adopt(engine, named())
    engine.drop(named())
    ask(theirs.url, "PUT", f"/{alias}")
    with pytest.raises(EngineError, match="an alias cannot have its name"):
        adopt(engine, stamp(alias))
    with pytest.raises(EngineError, match="is an index here, not an alias"):
        adopt(engine, stamp(theirs.name))
    assert "steelyard" not in theirs.mapping["mappings"]["_meta"]
