"""The match arm and highlights of OpenSearch, and indexes that lack arms, on a real node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from steelyard.errors import EngineError, InputError
from steelyard.plugin.abilities import FusesArms, Highlights
from steelyard.plugin.engine import AbsentArm, Engine, Generation, SearchIndex
from steelyard.plugin.filters import Eq, Not
from steelyard.plugin.fusion import Fusion
from steelyard.plugin.opensearch.connection import Connection
from steelyard.plugin.opensearch.engine import OpenSearchEngine
from steelyard.plugin.opensearch.settings import Settings
from steelyard.plugin.opensearch.words import MAX_WORDS, bounded_text
from steelyard.plugin.text_match import TextMatch
from steelyard.types import EncodedDocuments
from tests.servers.opensearch_node import ask
from tests.servers.opensearch_words import Opener, Words
from tests.test_milvus_lite import documents

pytest_plugins = ["tests.servers.opensearch", "tests.servers.opensearch_alias"]
pytestmark = [pytest.mark.opensearch]

TEXTS = [
    ("Steel", "a balance of two unequal arms"),
    ("Balance", "steel and wood, steel and iron"),
    ("Wood", "東京 the café <b>burns</b> wood"),
    ("", "nothing of the kind"),
]

HOSTILE = [
    'steel "unbalanced \\ {"match_all": {}}',
    "steel AND (OR *: /[a-z]+/ ~2 ^9 _exists_:id",
    "steel \ud800 lone",
    "steel \x00\u200d",
    "steel " + "x" * 1_000_000,
    "steel " * 200_000,
    "steel " + " ".join(f"w{i}" for i in range(5000)),
    "steel " + "東京" * 5000,
    "steel " + "🚀" * 5000,
    "steel " + "a.b-c'd_e/" * 3000,
]


def texts(count: int = len(TEXTS)) -> EncodedDocuments:
    content = documents(count)
    made = [
        replace(document, title=title, text=text)
        for document, (title, text) in zip(content.documents, TEXTS, strict=False)
    ]
    return EncodedDocuments(made, content.dense, content.sparse)


def fill(engine: Engine, generation: Generation, content: EncodedDocuments) -> SearchIndex:
    engine.create(generation)
    engine.upsert(generation, content)
    engine.seal(generation)
    return engine.open(generation)


@pytest.fixture
def index(opener: Opener, named: Any) -> SearchIndex:
    return fill(opener(Words()), named(), texts())


def found(index: SearchIndex, text: str, **more: Any) -> list[str]:
    return index.match.search([text], 10, **more)[0].ids


def test_words_are_found_in_title_and_text(index: SearchIndex, opensearch_url: str) -> None:
    assert index.arms == ("dense", "sparse", "match")
    answers = index.match.search(["steel", "CAFÉ", "", "  \n", "?!", "unknown", "東"], 10)
    assert [answer.ids for answer in answers] == [["d0", "d1"], ["d2"], [], [], [], [], ["d2"]]
    assert np.all(np.diff(answers[0].scores) < 0)
    name = index.generation.name
    theirs = ask(opensearch_url, "POST", f"/{name}/_search", {"query": {"multi_match": {
        "query": "wood balance", "fields": ["title^2", "text"], "tie_breaker": 0.5}}})  # fmt: skip
    hits = theirs["hits"]["hits"]
    (ours,) = index.match.search(["wood balance"], 10)
    assert ours.ids == [hit["_id"] for hit in hits]
    np.testing.assert_allclose(ours.scores, [hit["_score"] for hit in hits])


def test_pages_and_filters(index: SearchIndex) -> None:
    everything = found(index, "steel balance wood of the")
    assert set(everything) == {"d0", "d1", "d2", "d3"}
    assert found(index, "steel balance wood of the", offset=2) == everything[2:]
    condition = Not(Eq("stock", 1))
    assert found(index, "steel balance wood of the", filter=condition) == [
        identifier for identifier in everything if identifier != "d1"
    ]
    with pytest.raises(InputError, match="no metadata field 'colour'"):
        found(index, "steel", filter=Eq("colour", "red"))


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts(index: SearchIndex, text: str) -> None:
    assert set(found(index, text)) >= {"d0", "d1"}
    condition = Not(Eq("stock", 1))
    assert "d1" not in found(index, text, filter=condition)
    assert isinstance(index, Highlights)
    assert "<em>Steel</em>" in index.highlight(["d0"], text)["d0"]["title"]


def test_long_texts_are_cut_to_distinct_words() -> None:
    assert bounded_text("a b a") == "a b a"
    words = [f"w{i}" for i in range(2 * MAX_WORDS)]
    assert bounded_text(" ".join(["W0", *words])).split() == ["W0", *words[1:MAX_WORDS]]
    assert bounded_text("go " * 1000) == "go"
    assert bounded_text("\udfff") == "\ufffd"
    assert bounded_text("東京" * 300) == "東 京"


def test_a_title_weighs_what_is_asked(
    opensearch_url: str, alias: str, url: str, named: Any
) -> None:
    parts = urlsplit(opensearch_url)
    connection = Connection(Settings(str(parts.hostname), int(parts.port or 0)))
    text_match = TextMatch(title_boost=0.1, analyzer="english")
    engine = OpenSearchEngine(connection, alias, Words(), text_match)
    index = fill(engine, named(), texts())
    assert found(index, "steel") == ["d1", "d0"]
    assert found(index, "burning") == ["d2"]  # stemmed
    engine.text_match = TextMatch()
    assert found(engine.open(named()), "steel") == ["d0", "d1"]
    engine.text_match = TextMatch(analyzer="no-such-analyzer")
    with pytest.raises(EngineError, match="no-such-analyzer"):
        engine.create(named(2))
    connection.close()
    for boost in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="title boost"):
            TextMatch(title_boost=boost)


def test_highlights(index: SearchIndex) -> None:
    assert isinstance(index, Highlights)
    shown = index.highlight(["d2", "d1", "d3", "nobody"], "wood, steel")
    assert shown == {
        "d2": {"title": ["<em>Wood</em>"], "text": ["東京 the café <b>burns</b> <em>wood</em>"]},
        "d1": {"text": ["<em>steel</em> and <em>wood</em>, <em>steel</em> and iron"]},
        "d3": {},
    }
    assert index.highlight(["d1"], " ") == {}
    assert index.highlight([], "wood") == {}


def test_a_text_of_two_million_characters(opener: Opener, named: Any) -> None:
    content = texts()
    long = replace(content.documents[0], text="early " + "word " * 400_000 + "late")
    batch = EncodedDocuments([long, *content.documents[1:]], content.dense, content.sparse)
    index = fill(opener(Words()), named(), batch)
    assert found(index, "late") == ["d0"]
    assert isinstance(index, Highlights)
    (fragment,) = index.highlight(["d0"], "early late")["d0"]["text"]
    assert fragment.startswith("<em>early</em>")


def test_terms_come_back(opener: Opener, named: Any) -> None:
    content = documents(40)
    index = fill(opener(Words()), named(), content)
    stored = index.get([f"d{i}" for i in range(40)], terms=True)
    assert len(stored) == 40
    for row in range(40):
        impacts = stored[f"d{row}"].impacts
        assert impacts is not None
        ids, weights = content.sparse.row(row)
        np.testing.assert_array_equal(impacts[0], ids)
        np.testing.assert_array_equal(impacts[1], np.floor(weights * np.float32(100)))
        assert impacts[0].dtype == np.int32
        assert stored[f"d{row}"].dense is None
    assert index.get(["d7"])["d7"].impacts is None


@pytest.mark.parametrize("arm", ["dense", "sparse"])
def test_an_index_of_one_arm(opensearch_url: str, opener: Opener, named: Any, arm: str) -> None:
    (other,) = {"dense", "sparse"} - {arm}
    generation = replace(named(), arms=(arm,), arms_elsewhere=(other,))
    content, engine = documents(40), opener(Words())
    index = fill(engine, generation, content)
    engine.publish(generation)
    assert engine.resolve() == generation
    assert index.arms == (arm, "match")
    name = generation.name
    settings = ask(opensearch_url, "GET", f"/{name}")[name]
    assert other not in settings["mappings"]["properties"]
    assert ("knn" in settings["settings"]["index"]) == (arm == "dense")
    arms: dict[str, Any] = {"dense": index.dense, "sparse": index.sparse}
    queries: dict[str, Any] = {"dense": content.dense, "sparse": content.sparse}
    assert arms[arm].search(queries[arm], 3)[3].ids
    assert isinstance(arms[other], AbsentArm)
    with pytest.raises(EngineError, match=f"{name} has no {other} arm"):
        arms[other].search(queries[other], 3)
    assert isinstance(index, FusesArms)
    with pytest.raises(EngineError, match=f"holds the arms {arm} only"):
        index.hybrid(content.dense, content.sparse, Fusion(), 10, 5)
    stored = index.get(["d7"], vectors=True, terms=True)["d7"]
    assert (stored.dense is None, stored.impacts is None) == (arm == "sparse", arm == "dense")
    assert stored.document == content.documents[7]
    exported = index.export()
    assert exported.dense.shape == (40, 8)
    assert exported.dense.any() == (arm == "dense")
    assert len(exported.sparse) == 40
    assert bool(len(exported.sparse.ids)) == (arm == "sparse")


def test_indexes_without_indexed_texts_have_no_match_arm(
    opensearch_url: str, opener: Opener, named: Any
) -> None:
    """As older versions wrote them."""
    engine, generation = opener(Words()), named()
    engine.create(generation)
    name = generation.name
    mappings = ask(opensearch_url, "GET", f"/{name}")[name]["mappings"]
    ask(opensearch_url, "DELETE", f"/{name}")
    for field in ("title", "text"):
        mappings["properties"][field] = {"type": "text", "index": False}
    ask(opensearch_url, "PUT", f"/{name}", {
        "mappings": mappings, "settings": {"index": {"knn": True}}})  # fmt: skip
    engine.upsert(generation, documents(4))
    engine.seal(generation)
    index = engine.open(generation)
    assert index.arms == ("dense", "sparse")
    with pytest.raises(EngineError, match="has no match arm"):
        index.match.search(["text"], 3)
    assert isinstance(index, Highlights)
    assert index.highlight(["d1"], "text") == {}


def spoilt(content: EncodedDocuments, what: str) -> EncodedDocuments:
    dense, weights = content.dense.copy(), content.sparse.weights.copy()
    made: Sequence[Any] = content.documents
    if what == "dense vector":
        dense[7, 3] = np.nan
    elif what == "sparse vector":
        weights[content.sparse.indptr[7]] = np.inf
    else:
        made = [replace(d, metadata={"price": np.nan}) if d.id == "d7" else d for d in made]
    return EncodedDocuments(made, dense, replace(content.sparse, weights=weights))


@pytest.mark.parametrize("what", ["dense vector", "sparse vector", "'price'"])
def test_numbers_that_are_none_are_refused(opener: Opener, named: Any, what: str) -> None:
    engine = opener(Words())
    engine.create(named())
    with pytest.raises(EngineError, match=f"document 'd7': its {what} has NaN or infinity"):
        engine.upsert(named(), spoilt(documents(40), what))
    engine.seal(named())
    index = engine.open(named())
    assert index.count() == 0
    with pytest.raises(EngineError, match="query vector with NaN"):
        index.dense.search(np.full((1, 8), np.nan, np.float32), 3)
    with pytest.raises(InputError, match="inf as a value of 'price'"):
        index.dense.search(documents(1).dense, 3, filter=Eq("price", float("inf")))
