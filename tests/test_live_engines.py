"""Live changes and finding documents, on every real engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from steelyard.errors import InputError
from steelyard.indexer.changes.apply import Applier
from steelyard.indexer.changes.log import (
    DeleteFilter,
    DeleteIds,
    DeleteParents,
    Upsert,
    decode_change,
)
from steelyard.indexer.changes.positions import read_position, write_position
from steelyard.indexer.changes.replay import replay
from steelyard.indexer.lease import Lease
from steelyard.indexer.records_place import records_of
from steelyard.plugin.abilities import FindsIds, make_searchable
from steelyard.plugin.engine import Engine, Generation
from steelyard.plugin.filters import And, Eq, Exists, Filter, Not, Range
from steelyard.plugin.records import RecordStore
from steelyard.plugin.urls import open_engine
from steelyard.progress import SilentProgress
from steelyard.types import Document
from tests import live_changes
from tests.conftest import ROOT
from tests.live_changes import FIELDS, expected, fill, hash_encoder, live, stored, vectors, words
from tests.servers.opensearch_words import Words

pytest_plugins = [
    "tests.servers.opensearch",
    "tests.servers.opensearch_alias",
    "tests.servers.milvus",
]

KILLS = int(os.environ.get("STEELYARD_KILLS", "5"))
START = [
    Document("a", words(7), "A", "a", {"price": 1.0, "brand": "x"}),
    Document("b", words(2), "B", "b", {"price": 2.0}),
    Document("c", words(4), "C", "c", {"price": 3.0, "brand": "x"}),
    Document("q\"\\'é", words(4), "C", "q\"\\'é", {"price": 4.0}),
]


@dataclass
class Place:
    """An engine with no generation in it."""

    url: str
    alias: str
    arms: tuple[str, ...] = ("dense", "sparse")

    def open(self) -> Engine:
        return open_engine(self.url, vocabulary=Words())

    def generation(self, number: int = 1, passages: str = "3/0") -> Generation:
        made = live_changes.generation(number, passages=passages, alias=self.alias)
        return replace(made, arms=self.arms)


def _lite(tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    del request
    return Place(f"milvus-lite://{tmp_path / 'file.db'}?name=demo", "demo")


def _pair(tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    del request
    first, second = tmp_path / "dense.db", tmp_path / "sparse.db"
    url = f"dense=milvus-lite://{first}?name=demo,sparse=milvus-lite://{second}?name=demo"
    return Place(url, "demo")


def _lucene(tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    del request
    return Place(f"lucene://{tmp_path / 'folder'}?name=demo", "demo")


def _opensearch(tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    del tmp_path
    return Place(request.getfixturevalue("url"), request.getfixturevalue("alias"))


def _milvus(tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    del tmp_path
    # The server is 2.3, which has no sparse vectors.
    alias = request.getfixturevalue("milvus_alias")
    return Place(request.getfixturevalue("milvus_url"), alias, ("dense",))


MAKERS: dict[str, Callable[[Path, pytest.FixtureRequest], Place]] = {
    "lite": _lite,
    "pair": _pair,
    "lucene": _lucene,
    "opensearch": _opensearch,
    "milvus": _milvus,
}
EVERY = [
    "lite",
    "pair",
    pytest.param("lucene", marks=pytest.mark.lucene),
    pytest.param("opensearch", marks=pytest.mark.opensearch),
    pytest.param("milvus", marks=pytest.mark.milvus),
]
TWO = ["lite", pytest.param("opensearch", marks=pytest.mark.opensearch)]


@pytest.fixture
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Place:
    monkeypatch.setenv("STEELYARD_STATE", str(tmp_path / "state"))
    return MAKERS[request.param](tmp_path, request)


@pytest.fixture
def opened(place: Place) -> Iterator[Engine]:
    engine = place.open()
    yield engine
    engine.close()


def begin(place: Place, engine: Engine, documents: list[Document]) -> RecordStore:
    """Publish generation 1."""
    fill(engine, place.generation(), documents)
    engine.publish(place.generation())
    store = records_of(engine, place.url)
    write_position(store, place.generation(), 0)
    return store


def holds(engine: Engine, made: Generation, documents: list[Document]) -> None:
    assert stored(engine, made) == expected(documents, made)
    assert engine.open(made).count() == len(expected(documents, made))


def found_by_search(engine: Engine, made: Generation, text: str) -> str:
    """The id of the document that a search for a text's own vector gives first."""
    query = vectors([Document("q", text, "new")]).dense
    return engine.open(made).dense.search(query, 1)[0].ids[0]


@pytest.mark.parametrize("place", EVERY, indirect=True)
def test_documents_are_found_by_parent_and_filter(place: Place, opened: Engine) -> None:
    made = place.generation()
    fill(opened, made, START)
    index = opened.open(made)
    assert isinstance(index, FindsIds)
    assert index.find(parents=["a"]) == ["a#0", "a#1", "a#2"]
    assert index.find(parents=["b", "c", "nobody", "c"]) == ["b", "c#0", "c#1"]
    assert index.find(parents=["q\"\\'é"]) == ["q\"\\'é#0", "q\"\\'é#1"]
    assert index.find(parents=[]) == []
    conditions: list[tuple[Filter, list[str]]] = [
        (Eq("brand", "x"), ["a#0", "a#1", "a#2", "c#0", "c#1"]),
        (And([Range("price", gt=1.5), Eq("brand", "x")]), ["c#0", "c#1"]),
        (Eq("brand", "nobody"), []),
        (Not(Exists("brand")), ["b", "q\"\\'é#0", "q\"\\'é#1"]),
    ]
    for condition, ids in conditions:
        assert index.find(filter=condition) == ids
    assert index.find(parents=["a", "b"], filter=Not(Exists("brand"))) == ["b"]
    with pytest.raises(InputError, match="neither parents nor a filter"):
        index.find()
    with pytest.raises(InputError, match="no metadata field"):
        index.find(filter=Eq("colour", 1))
    # What was written just now is found.
    opened.upsert(made, vectors([Document("z", "new", "", "a")]))
    if place.url.startswith("lucene"):
        make_searchable(opened, made)
    assert index.find(parents=["a"]) == ["a#0", "a#1", "a#2", "z"]


@pytest.mark.parametrize("place", EVERY[:1] + EVERY[3:], indirect=True)
def test_all_are_found_however_many(place: Place, opened: Engine) -> None:
    made = place.generation(passages="")
    content = [
        Document(f'"d{n:05d}\\"', "text", "", "p" if n % 10 else "other", {"price": float(n)})
        for n in range(18_000)
    ]
    opened.create(made)
    many = vectors(content[:1])
    rows = [0] * 3000
    for first in range(0, len(content), len(rows)):
        documents = content[first : first + len(rows)]
        batch = replace(many, documents=documents, dense=many.dense[rows])
        opened.upsert(made, replace(batch, sparse=many.sparse.select(rows)))
    opened.seal(made)
    index = opened.open(made)
    assert isinstance(index, FindsIds)
    assert index.find(parents=["p"]) == [d.id for d in content if d.parent_id == "p"]
    assert index.find(filter=Range("price", gte=500)) == [d.id for d in content[500:]]
    parents = [f"nobody{n}" for n in range(12_000)]
    assert len(index.find(parents=[*parents, "other"])) == 1800


@pytest.mark.parametrize("place", EVERY, indirect=True)
def test_a_live_change_is_seen_when_the_call_returns(place: Place, opened: Engine) -> None:
    store = begin(place, opened, START)
    made, now = place.generation(), {d.id: d for d in START}
    changing = live(opened, store)
    # A reader that was there before sees it too.
    reader = opened.open(made)
    for count in (8, 2, 11):
        new = Document("a", words(count, 100 + count), "new", "a", {"price": 9.0})
        report = changing.upsert([new, Document("d", words(count), "D", "d")])
        now |= {"a": new, "d": Document("d", words(count), "D", "d")}
        assert (report.documents, report.refused) == (2, {})
        assert reader.count() == len(expected(list(now.values()), made))
        first = expected([new], made)
        text = next(iter(first.values()))
        assert found_by_search(opened, made, text) == next(iter(first))
        holds(opened, made, list(now.values()))
    assert changing.delete(["a#2", "b", "nobody"]).ids == ("a", "b")
    assert changing.delete(["d"]).rows == 4
    assert not {"a", "b", "d"} & {i.split("#")[0] for i in stored(opened, made)}
    changing.upsert([Document("e", words(4), "", "e", {"brand": "y"})])
    assert changing.delete_matching(DeleteFilter({"eq": {"brand": "x"}})).ids == ("c",)
    assert changing.delete_parents(["q\"\\'é"]).rows == 2
    holds(opened, made, [Document("e", words(4))])
    position = read_position(store, made.name)
    assert position is not None
    assert position.applied == store.last_sequence() == 11


@pytest.mark.parametrize("place", EVERY, indirect=True)
def test_a_replay_goes_to_a_generation_that_is_split_otherwise(
    place: Place, opened: Engine
) -> None:
    store = begin(place, opened, START)
    changing = live(opened, store)
    changing.upsert([Document("a", words(9, 50)), Document("n", words(5))])
    changing.delete(["b"])
    changing.delete_matching(DeleteFilter({"range": {"price": {"gte": 4}}}))
    changing.upsert([Document("n", words(2))])
    now = [Document("a", words(9, 50)), START[2], Document("n", words(2))]
    for number, passages in ((2, ""), (3, "3/0")):
        newer = place.generation(number, passages)
        fill(opened, newer, START)
        applied = replay(store, opened, newer, hash_encoder, 0, SilentProgress())
        assert applied == 5
        holds(opened, newer, now)
        replay(store, opened, newer, hash_encoder, 0, SilentProgress())
        holds(opened, newer, now)
    holds(opened, place.generation(), now)


@pytest.mark.parametrize("place", TWO, indirect=True)
def test_a_re_index_while_others_write_loses_nothing(place: Place, opened: Engine) -> None:
    """Three times a snapshot is loaded and replayed while a thread changes the index."""
    store = begin(place, opened, START)
    stop, errors = threading.Event(), list[BaseException]()

    def write() -> None:
        n = 0
        try:
            while not stop.is_set() or n < 12:
                changing = live(opened, store)
                changing.upsert([Document(f"t{n % 5}", words(1 + n % 9, 10 * n))])
                changing.delete([f"t{(n + 2) % 5}", "b"] if n % 2 else ["c"])
                n += 1
        except BaseException as error:
            errors.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in (2, 3, 4):
            newer = place.generation(number, "" if number % 2 else "3/0")
            after = store.last_sequence()
            snapshot = list(after_log(store, after).values())
            fill(opened, newer, snapshot)
            applied = replay(store, opened, newer, hash_encoder, after, SilentProgress())
            with Lease.take(store, "write", owner="switch", seconds=5, wait=60) as lease:
                applied = replay(
                    store, opened, newer, hash_encoder, applied, SilentProgress(),
                    check=lease.check,
                )  # fmt: skip
                opened.publish(newer)
                write_position(store, newer, applied)
    finally:
        stop.set()
        writer.join(120)
    assert not errors
    assert opened.resolve() == place.generation(4)
    now = list(after_log(store, store.last_sequence()).values())
    holds(opened, place.generation(4), now)
    assert store.last_sequence() >= 24


def after_log(store: RecordStore, through: int) -> dict[str, Document]:
    """The documents that there are after so many entries, starting from ``START``."""
    now = {document.id: document for document in START}
    for entry in store.entries(0):
        if entry.sequence > through:
            break
        change = decode_change(entry)
        if isinstance(change, Upsert):
            now[change.document.id] = change.document
        elif isinstance(change, DeleteIds):
            now = {i: d for i, d in now.items() if i not in change.ids}
        else:
            assert not isinstance(change, DeleteParents | DeleteFilter)
    return now


def writer_process(place: Place, **arguments: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.live_writer", json.dumps({"url": place.url, **arguments})],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("place", TWO, indirect=True)
def test_a_writer_that_is_killed_between_log_and_index(place: Place) -> None:
    """The next command finishes what the dead one began; nothing acknowledged is lost."""
    engine = place.open()
    store = begin(place, engine, START)
    engine.close()
    steps, number = ["log", "upsert", "finish", "delete", "log"], 0
    for kill in range(KILLS):
        process = writer_process(
            place, name="w", number=number, count=2, stop_at=steps[kill % len(steps)]
        )
        assert process.stdout is not None
        said = []
        # A step that the last change does not take is not waited at.
        for line in process.stdout:
            said.append(line.strip())
            if line.startswith("at "):
                break
        process.kill()
        process.stdout.close()
        process.wait()
        assert said[:2] == [str(number), str(number + 1)]
        number += 3
    engine = place.open()
    store = records_of(engine, place.url)
    lasting = live(engine, store)
    lasting.catch_up()
    holds(engine, place.generation(), list(after_log(store, store.last_sequence()).values()))
    position = read_position(store, place.generation().name)
    assert position is not None
    assert position.applied == store.last_sequence()
    assert lasting.catch_up() == 0
    engine.close()


@pytest.mark.opensearch
@pytest.mark.parametrize("place", TWO[1:], indirect=True)
def test_two_writers_at_once_lose_no_entry(place: Place, opened: Engine) -> None:
    store = begin(place, opened, START)
    each = 12
    running = [
        writer_process(place, name=name, number=0, count=each, stop_at="") for name in ("u", "v")
    ]
    for process in running:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0
        assert said.split() == [str(n) for n in range(each)]
    entries = [decode_change(entry) for entry in store.entries(0)]
    assert sum(isinstance(change, DeleteIds) for change in entries) == 2 * (each // 5)
    common = [c for c in entries if isinstance(c, Upsert) and c.document.id == "common"]
    assert {c.document.metadata["brand"] for c in common} == {"u", "v"}
    assert [e.sequence for e in store.entries(0)] == list(range(1, store.last_sequence() + 1))
    holds(opened, place.generation(), list(after_log(store, store.last_sequence()).values()))


@pytest.mark.parametrize("place", EVERY[1:2], indirect=True)
def test_what_a_crash_left_in_the_follower_goes_too(place: Place, opened: Engine) -> None:
    """A pair's delete died between its two engines: the lead no longer knows the passages."""
    begin(place, opened, START)
    made = place.generation()
    lead: Any = opened
    half = replace(made, arms=("sparse",), arms_elsewhere=("dense",))
    lead._lead.delete(half, ["a#0", "a#1", "a#2"])
    index: Any = opened.open(made)
    assert index.counts() == (8, 5)
    applier = Applier(opened, made, hash_encoder)
    applier.add(DeleteIds(("a",)))
    applier.flush()
    assert index.counts() == (5, 5)


@pytest.mark.parametrize("place", EVERY[:1], indirect=True)
def test_a_document_that_the_engine_does_not_know_the_fields_of(
    place: Place, opened: Engine
) -> None:
    store = begin(place, opened, START)
    assert set(FIELDS) == set(place.generation().fields)
    live(opened, store).upsert([Document("a", "text", "", "a", {"colour": "red", "price": 3.0})])
    index = opened.open(place.generation())
    assert index.get(["a"])["a"].document.metadata == {"price": 3.0}
