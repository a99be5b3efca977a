"""Live changes in a model: an engine in memory, random changes, re-indexes and rollbacks."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from steelyard.errors import EngineError, InputError
from steelyard.indexer.changes.apply import Applier
from steelyard.indexer.changes.log import (
    DeleteFilter,
    DeleteIds,
    DeleteParents,
    Upsert,
    decode_change,
    encode_change,
    sequence_at,
)
from steelyard.indexer.changes.positions import position_of, read_position, write_position
from steelyard.indexer.changes.replay import replay
from steelyard.indexer.lease import Lease, LeaseHeldError
from steelyard.plugin.engine import Generation
from steelyard.plugin.folder_records import FolderRecords
from steelyard.plugin.records import LogEntry
from steelyard.progress import SilentProgress
from steelyard.types import Document
from tests.live_changes import (
    expected,
    fill,
    generation,
    hash_encoder,
    live,
    records,
    stored,
    words,
)
from tests.memory_engine import MemoryEngine

NOW = "2026-01-02T00:00:00+00:00"


@pytest.fixture
def store(tmp_path: Path) -> FolderRecords:
    return records(tmp_path)


@pytest.fixture
def engine() -> MemoryEngine:
    """A published generation of three documents, two of them split."""
    made = MemoryEngine()
    fill(made, generation(), START)
    made.publish(generation())
    return made


START = [
    Document("a", words(7), "A", "a", {"price": 1.0, "brand": "x"}),
    Document("b", words(2), "B", "b", {"price": 2.0}),
    Document("c", words(4), "C", "c", {"price": 3.0, "brand": "x"}),
]


@pytest.mark.parametrize(
    "change",
    [
        Upsert(Document("a", "text\u2028é", "title", "a", {"price": 1.5, "new": True, "n": None})),
        Upsert(Document("a-1", "text", "", "a")),
        DeleteIds(("a", "b")),
        DeleteParents(("a",)),
        DeleteFilter({"range": {"price": {"lt": 2}}}),
    ],
)
def test_an_entry_says_what_it_was_made_of(
    change: Upsert | DeleteIds | DeleteParents | DeleteFilter, store: FolderRecords
) -> None:
    store.append([encode_change(change, NOW)])
    (entry,) = store.entries(0)
    assert decode_change(entry) == change


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"op": "move"},
        {"op": "delete"},
        {"op": "delete", "ids": "abc"},
        {"op": "delete", "filter": {"near": {}}},
        {"op": "upsert", "document": {"id": "a"}},
        {"op": "upsert", "document": {"id": "", "text": "x"}},
    ],
)
def test_an_entry_of_another_version_is_told(value: dict[str, object]) -> None:
    with pytest.raises(EngineError, match="entry 7 of the log"):
        decode_change(LogEntry(7, value))


def test_a_changed_document_leaves_nothing_of_the_old(
    engine: MemoryEngine, store: FolderRecords
) -> None:
    assert set(stored(engine, generation())) == {"a#0", "a#1", "a#2", "b", "c#0", "c#1"}
    for count in (4, 1, 9, 3):
        report = live(engine, store).upsert([Document("a", words(count, 100), "new")])
        now = [Document("a", words(count, 100), "new"), *START[1:]]
        assert stored(engine, generation()) == expected(now, generation())
        assert report.rows == max(1, -(-count // 3))
    position = read_position(store, generation().name)
    assert position is not None
    assert position.applied == store.last_sequence() == 4


def test_a_replaced_document_is_never_away(engine: MemoryEngine, store: FolderRecords) -> None:
    seen: list[set[str]] = []
    upsert, delete = engine.upsert, engine.delete

    def watched(original: Callable[..., Any]) -> Callable[..., int | None]:
        def call(*arguments: object, **named: object) -> Any:
            result = original(*arguments, **named)
            seen.append({i for i in stored(engine, generation()) if i.split("#")[0] == "a"})
            return result

        return call

    engine.upsert = watched(upsert)  # type: ignore[assignment,method-assign]
    engine.delete = watched(delete)  # type: ignore[assignment,method-assign]
    live(engine, store).upsert([Document("a", words(1))])
    assert seen == [{"a", "a#0", "a#1", "a#2"}, {"a"}]


def test_deletes_are_of_whole_documents(engine: MemoryEngine, store: FolderRecords) -> None:
    changing = live(engine, store, tower=False)
    before = stored(engine, generation())
    looked = changing.delete(["a#1", "b", "nobody"], dry_run=True)
    assert (looked.ids, looked.rows, looked.unknown) == (("a", "b"), 4, ("nobody",))
    assert stored(engine, generation()) == before
    assert store.last_sequence() == 0
    done = changing.delete(["a#1", "b", "nobody"])
    assert (done.ids, done.rows, done.unknown) == (("a", "b"), 4, ("nobody",))
    assert set(stored(engine, generation())) == {"c#0", "c#1"}
    assert changing.delete(["a"]).ids == ()


def test_deletes_by_parent_and_by_filter(engine: MemoryEngine, store: FolderRecords) -> None:
    changing = live(engine, store)
    changing.upsert([Document("a-1", "part", "", "a"), Document("a-2", "part", "", "a")])
    assert changing.delete(["a"]).ids == ("a",)
    assert {"a-1", "a-2"} <= set(stored(engine, generation()))
    done = changing.delete_parents(["a", "nobody"])
    assert (done.ids, done.rows) == (("a-1", "a-2"), 2)
    condition = DeleteFilter({"eq": {"brand": "x"}})
    assert changing.delete_matching(condition, dry_run=True).ids == ("c",)
    assert changing.delete_matching(condition).rows == 2
    assert set(stored(engine, generation())) == {"b"}
    with pytest.raises(InputError, match="no metadata field 'colour'"):
        changing.delete_matching(DeleteFilter({"eq": {"colour": "x"}}))
    # A condition that cannot be is not logged: it could never be applied.
    last = list(store.entries(0))[-1]
    assert decode_change(last) == condition


def test_what_was_logged_and_not_applied_is_applied_by_the_next(
    engine: MemoryEngine, store: FolderRecords
) -> None:
    live(engine, store).upsert([Document("d", words(5))])
    engine.faults.failing = {"upsert"}
    with pytest.raises(EngineError, match="out of order") as caught:
        live(engine, store).upsert([Document("a", "new")])
    assert "entry 2 of the log" in caught.value.hint
    assert "repair it" in caught.value.hint
    engine.faults.failing = {"delete"}
    with pytest.raises(EngineError):
        live(engine, store).upsert([Document("e", "next")])
    with pytest.raises(EngineError, match="no pack"):
        live(engine, store, tower=False).delete(["b"])
    engine.faults.failing = set()
    report = live(engine, store).delete(["b"])
    assert report.replayed == 1
    now = [Document("a", "new"), START[2], Document("d", words(5))]
    assert stored(engine, generation()) == expected(now, generation())


def test_a_document_without_a_vector_is_refused_and_not_logged(
    engine: MemoryEngine, store: FolderRecords
) -> None:
    report = live(engine, store).upsert([Document("a", "NAN"), Document("b", "fine")])
    assert report.refused == {"a": "NaN or infinite vector"}
    assert report.documents == 1
    now = [START[0], Document("b", "fine"), START[2]]
    assert stored(engine, generation()) == expected(now, generation())
    assert store.last_sequence() == 1
    with pytest.raises(InputError, match="same id twice"):
        live(engine, store).upsert([Document("a", "x"), Document("a", "y")])


def test_one_writer_at_a_time(engine: MemoryEngine, store: FolderRecords) -> None:
    with Lease.take(store, "write", owner="someone", seconds=30):
        changing = live(engine, store)
        changing._wait = 0
        with pytest.raises(LeaseHeldError, match="someone"):
            changing.upsert([Document("a", "x")])
    assert store.last_sequence() == 0


def test_there_must_be_a_generation_of_ours(store: FolderRecords) -> None:
    empty = MemoryEngine()
    with pytest.raises(EngineError, match="stands for no generation") as caught:
        live(empty, store).delete(["a"])
    assert "steelyard index" in caught.value.hint
    made = MemoryEngine()
    adopted = replace(generation(), columns={"id": "sku"})
    fill(made, adopted, START)
    made.publish(adopted)
    with pytest.raises(EngineError, match="adopted: Steelyard only reads it"):
        live(made, store).upsert([Document("a", "x")])
    assert stored(made, adopted) == expected(START, adopted)


def test_an_older_generation_without_a_position_takes_what_came_after_it(
    engine: MemoryEngine, store: FolderRecords
) -> None:
    # The generation's name says 2026-01-01.
    store.append([encode_change(DeleteIds(("a",)), "2025-12-31T00:00:00+00:00")])
    store.append([encode_change(DeleteIds(("b",)), "2026-01-02T00:00:00+00:00")])
    assert position_of(store, generation()).applied == 1
    assert live(engine, store, tower=False).catch_up() == 1
    assert stored(engine, generation()) == expected([START[0], START[2]], generation())


def test_times_of_the_log_never_go_back(engine: MemoryEngine, store: FolderRecords) -> None:
    ahead = datetime.now(timezone.utc) + timedelta(hours=1)
    write_position(store, generation(), 0)
    store.append([encode_change(DeleteIds(("x",)), ahead.isoformat())])
    live(engine, store).upsert([Document("a", "x")])
    times = [entry.value["time"] for entry in store.entries(0)]
    assert datetime.fromisoformat(times[1]) >= ahead
    assert sequence_at(store, ahead) >= 1
    assert sequence_at(store, ahead - timedelta(seconds=1)) == 0


def test_a_log_that_was_trimmed_too_far_is_told(
    engine: MemoryEngine, store: FolderRecords
) -> None:
    store.append([encode_change(DeleteIds((f"x{n}",)), NOW) for n in range(5)])
    store.trim(3)
    with pytest.raises(EngineError, match=r"up to entry 2, and the log in .* begins with entry 4"):
        replay(store, engine, generation(), hash_encoder, 2, SilentProgress())
    assert replay(store, engine, generation(), hash_encoder, 3, SilentProgress(), 4) == 4
    assert replay(store, engine, generation(), hash_encoder, 5, SilentProgress()) == 5


def test_changes_go_together_and_keep_their_order(engine: MemoryEngine) -> None:
    applier = Applier(engine, generation(), hash_encoder)
    engine.faults.calls.clear()
    for n in range(40):
        applier.add(Upsert(Document(f"n{n % 20}", f"text {n}")))
    applier.add(DeleteIds(("n3", "b")))
    applier.add(Upsert(Document("b", "again")))
    assert "upsert" not in engine.faults.calls
    applier.add(DeleteFilter({"eq": {"brand": "x"}}))
    applier.flush()
    assert engine.faults.calls.count("upsert") == 1
    now = [Document(f"n{n - 20}", f"text {n}") for n in range(20, 40) if n != 23]
    now.append(Document("b", "again"))
    assert stored(engine, generation()) == expected(now, generation())


IDS = st.sampled_from(["a", "b", "c", "d", "e"])
COUNTS = st.integers(1, 8)
METADATA = st.sampled_from([{}, {"price": 1.0}, {"price": 5.0, "brand": "x"}, {"brand": "y"}])
FILTERS = st.sampled_from(
    [{"eq": {"brand": "x"}}, {"range": {"price": {"lt": 3}}}, {"not": {"exists": "brand"}}]
)

MEETS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "eq": lambda metadata: metadata.get("brand") == "x",
    "range": lambda metadata: "price" in metadata and metadata["price"] < 3,
    "not": lambda metadata: "brand" not in metadata,
}
"""The same conditions, in Python."""


class Interleaved(RuleBasedStateMachine):
    """Changes, crashes, re-indexes and rollbacks in any order, against a dictionary.

    A re-index takes its snapshot at one moment, loads it at another and switches at a third.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = FolderRecords(Path(self.folder.name), segment_bytes=300)
        self.engine = MemoryEngine()
        self.model: dict[str, Document] = {}
        self.number = 1
        self.version = 0
        self.snapshot: tuple[dict[str, Document], int] | None = None
        self.loaded: tuple[int, int] | None = None
        self.crashed = False

    @initialize(passages=st.sampled_from(["", "3/0"]))
    def begin(self, passages: str) -> None:
        self.passages = {1: passages}
        fill(self.engine, self.named(1), [])
        self.engine.publish(self.named(1))
        write_position(self.store, self.named(1), 0)

    def named(self, number: int) -> Generation:
        return generation(number, passages=self.passages[number])

    @rule(ids=st.lists(IDS, min_size=1, max_size=3, unique=True), count=COUNTS, metadata=METADATA)
    def upsert(self, ids: list[str], count: int, metadata: dict[str, object]) -> None:
        documents = []
        for identifier in ids:
            self.version += 1
            text = words(count, self.version * 10)
            documents.append(Document(identifier, text, "", identifier, metadata))  # type: ignore[arg-type]
        live(self.engine, self.store).upsert(documents)
        self.model |= {document.id: document for document in documents}
        self.crashed = False

    @rule(ids=st.lists(IDS, min_size=1, max_size=3, unique=True))
    def delete(self, ids: list[str]) -> None:
        live(self.engine, self.store).delete(ids)
        self.model = {i: d for i, d in self.model.items() if i not in ids}
        self.crashed = False

    @rule(condition=FILTERS)
    def delete_matching(self, condition: dict[str, object]) -> None:
        live(self.engine, self.store).delete_matching(DeleteFilter(condition))
        meets = MEETS[next(iter(condition))]
        self.model = {i: d for i, d in self.model.items() if not meets(d.metadata)}
        self.crashed = False

    @rule(identifier=IDS, count=COUNTS, where=st.sampled_from(["upsert", "delete", "seal"]))
    def crash_after_the_log(self, identifier: str, count: int, where: str) -> None:
        """What is in the log is done, also when its writer fails at any step behind it."""
        self.version += 1
        document = Document(identifier, words(count, self.version * 10), "", identifier)
        live(self.engine, self.store).catch_up()
        before = self.store.last_sequence()
        self.engine.faults.failing = {where}
        try:
            live(self.engine, self.store).upsert([document])
        except EngineError:
            self.crashed = True
        self.engine.faults.failing = set()
        if self.store.last_sequence() > before:
            self.model[identifier] = document

    @precondition(lambda self: self.snapshot is None)
    @rule()
    def take_snapshot(self) -> None:
        live(self.engine, self.store).catch_up()
        self.crashed = False
        self.snapshot = (dict(self.model), self.store.last_sequence())

    @precondition(lambda self: self.snapshot is not None and self.loaded is None)
    @rule(passages=st.sampled_from(["", "3/0"]))
    def load_snapshot(self, passages: str) -> None:
        assert self.snapshot is not None
        documents, after = self.snapshot
        number = max(self.passages) + 1
        self.passages[number] = passages
        fill(self.engine, self.named(number), list(documents.values()))
        self.loaded = (number, after)

    @precondition(lambda self: self.loaded is not None)
    @rule()
    def replay_while_others_write(self) -> None:
        assert self.loaded is not None
        number, after = self.loaded
        applied = replay(
            self.store, self.engine, self.named(number), hash_encoder, after, SilentProgress()
        )
        self.loaded = (number, applied)

    @precondition(lambda self: self.loaded is not None)
    @rule(again=st.booleans())
    def switch(self, again: bool) -> None:
        assert self.loaded is not None
        number, after = self.loaded
        self.move_to(number, after if again else self.snapshot[1])  # type: ignore[index]
        self.snapshot = self.loaded = None

    @precondition(lambda self: len(self.passages) > 1)
    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        loading = self.loaded[0] if self.loaded else 0
        others = [n for n in self.passages if n not in (self.number, loading)]
        if others:
            number = data.draw(st.sampled_from(others))
            position = read_position(self.store, self.named(number).name)
            assert position is not None
            self.move_to(number, position.applied)

    def move_to(self, number: int, after: int) -> None:
        with Lease.take(self.store, "write", owner="switch", seconds=5) as lease:
            made = self.named(number)
            applied = replay(
                self.store,
                self.engine,
                made,
                hash_encoder,
                after,
                SilentProgress(),
                check=lease.check,
            )
            self.engine.publish(made)
            write_position(self.store, made, applied)
        self.number, self.crashed = number, False

    @invariant()
    def the_index_is_the_model(self) -> None:
        if not self.crashed and hasattr(self, "passages"):
            made = self.named(self.number)
            assert self.engine.resolve() == made
            assert stored(self.engine, made) == expected(list(self.model.values()), made)

    def teardown(self) -> None:
        if hasattr(self, "passages"):
            live(self.engine, self.store).catch_up()
            self.crashed = False
            self.the_index_is_the_model()
        self.folder.cleanup()


TestInterleaved = Interleaved.TestCase
TestInterleaved.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
