"""Loads beside live changes: what is current already, old shards, logs that were trimmed."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

import steelyard.indexer.lease as lease_module
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import EngineError, InputError
from steelyard.eval.bench.synthetic import synthetic_corpus, synthetic_pack
from steelyard.indexer.build import EncodeSettings, encode_documents, index_corpus
from steelyard.indexer.changes.log import DeleteIds, Upsert, encode_change
from steelyard.indexer.changes.positions import position_of, write_position
from steelyard.indexer.generations.gc import sweep
from steelyard.indexer.generations.history import OFF, PUBLISHED, note
from steelyard.indexer.generations.rollback import rollback
from steelyard.indexer.lease import JOB, WRITE, Lease, holder_of, running_clock
from steelyard.indexer.loading.job import LoadSettings
from steelyard.indexer.loading.load import load_folder
from steelyard.indexer.loading.replaying import Replaying
from steelyard.indexer.loading.sink import LoadReport, Sink
from steelyard.indexer.reading.corpus import Corpus
from steelyard.indexer.reading.readers import open_corpus
from steelyard.plugin.engine import Generation
from steelyard.plugin.folder_records import FolderRecords
from steelyard.progress import SilentProgress
from steelyard.types import Document
from tests.live_changes import fill, generation, hash_encoder, live, stored
from tests.memory_engine import MemoryEngine

DOCUMENTS, SHARD = 20, 5
NOW = datetime.now(timezone.utc)


class Place:
    """An engine in memory with its records, a pack, and corpora that are some days old."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.engine, self.jobs = folder, MemoryEngine(), 0
        self.store = FolderRecords(folder / "records")
        self.pack = QueryEncoder.load(synthetic_pack(folder / "pack", dims=16))
        self.sink = Sink("memory", lambda: self.engine, False, lambda engine: self.store)

    def corpus(self, days: int, count: int = DOCUMENTS) -> Corpus:
        """As it was taken some days ago; of the same count it is the same."""
        path = synthetic_corpus(self.folder / f"corpus{count}.jsonl", count)
        taken = (NOW - timedelta(days=days)).timestamp()
        os.utime(path, (taken, taken))
        return open_corpus(path)

    def settings(self, corpus: Corpus) -> EncodeSettings:
        folder = self.folder / f"shards-{corpus.path.stem}"
        return EncodeSettings(shards=folder, shard_documents=SHARD)

    def index(self, days: int, count: int = DOCUMENTS) -> LoadReport:
        corpus = self.corpus(days, count)
        settings = self.settings(corpus)
        self.jobs += 1
        loading = LoadSettings(now=lambda: NOW + timedelta(seconds=self.jobs))
        return index_corpus(
            corpus, self.pack, [self.sink], SilentProgress(), settings, loading
        ).load

    def log(self, days: int, *ids: str) -> None:
        """Documents were deleted, and whoever did it died before it was applied."""
        for one in ids:
            moment = (NOW - timedelta(days=days)).isoformat()
            self.store.append([encode_change(DeleteIds((one,)), moment)])

    def delete(self, *ids: str) -> None:
        for one in ids:
            live(self.engine, self.store).delete([one])

    def ids(self) -> set[str]:
        current = self.engine.resolve()
        assert current is not None
        return set(stored(self.engine, current))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_same_corpus_is_there_with_the_changes_since(place: Place) -> None:
    first = place.index(days=9)
    one, two, *_ = sorted(place.ids())
    place.delete(one)
    place.log(0, two)
    again = place.index(days=9)
    assert (again.reused, again.generation) == (True, first.generation)
    assert (again.documents, place.ids() & {one, two}) == (DOCUMENTS - 2, set())


def test_the_same_bytes_of_a_later_time_are_not_what_was_changed_since(place: Place) -> None:
    first = place.index(days=9)
    one = min(place.ids())
    place.log(5, one)
    place.index(days=9)
    assert one not in place.ids()
    again = place.index(days=1)  # whoever took it had that document again
    assert (again.reused, again.documents) == (False, DOCUMENTS)
    assert again.generation != first.generation
    assert one in place.ids()


def test_what_cannot_catch_up_is_made_anew(place: Place) -> None:
    """As after a rollback that accepted to be stale."""
    place.index(days=9)
    one, two, three, *_ = sorted(place.ids())
    place.log(8, one)
    place.log(7, two)
    place.log(6, three)
    place.store.trim(2)
    with pytest.raises(EngineError, match="begins with entry 3"):
        place.delete(one)
    with pytest.raises(InputError, match="earlier ones are forgotten"):
        place.index(days=9)
    again = place.index(days=1)
    assert (again.reused, place.ids() >= {one, two, three}) == (False, True)
    place.delete(one)
    assert one not in place.ids()


def test_a_log_of_old_changes_that_all_have_stops_no_new_corpus(place: Place) -> None:
    place.index(days=90)
    one, two, *_ = sorted(place.ids())
    place.log(80, one)
    place.log(70, two)
    place.index(days=90)
    swept = sweep(place.engine, place.store, keep=0, grace=0)
    assert swept.trimmed == 1
    assert place.index(days=1, count=DOCUMENTS + 1).documents == DOCUMENTS + 1
    with pytest.raises(InputError, match="the log of live changes of demo begins"):
        place.index(days=75, count=DOCUMENTS + 2)


def test_shards_that_are_loaded_long_after_get_the_changes_since(place: Place) -> None:
    corpus = place.corpus(9, DOCUMENTS + 1)
    folder, manifest = encode_documents(
        corpus, place.pack, SilentProgress(), place.settings(corpus)
    )
    place.index(days=9)
    one = min(place.ids())
    place.delete(one)
    later = LoadSettings(now=lambda: NOW + timedelta(days=1))
    load_folder(manifest, folder, place.pack.metadata, [place.sink], SilentProgress(), later)
    assert len(place.ids()) == DOCUMENTS
    assert one not in place.ids()


def test_a_load_goes_on_behind_a_server_that_was_away_for_long(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than the job's lease lives, and nobody took it."""
    away = [0.0]
    monkeypatch.setattr(lease_module, "running_clock", lambda: running_clock() + away[0])
    original = place.engine.upsert

    def upsert(*args: object, **more: object) -> object:
        away[0] += 1000
        return original(*args, **more)  # type: ignore[arg-type]

    place.engine.upsert = upsert  # type: ignore[method-assign, assignment]
    assert place.index(days=1).documents == DOCUMENTS
    assert away == [1000.0 * DOCUMENTS / SHARD]


def test_what_is_published_is_written_under_the_write_lease_only(tmp_path: Path) -> None:
    """A job that was killed behind the alias change goes on beside live writers."""
    engine, store = MemoryEngine(), FolderRecords(tmp_path)
    made = generation()
    fill(engine, made, [Document("d1", "old", "", "d1", {})])
    engine.publish(made)
    change = Upsert(Document("d1", "new", "", "d1", {}))
    store.append([encode_change(change, NOW.isoformat())])
    write_position(store, made, 0)
    owners = []
    original = engine.upsert

    def upsert(*args: object, **more: object) -> object:
        holder = holder_of(store, WRITE)
        owners.append("" if holder is None else holder.owner)
        return original(*args, **more)  # type: ignore[arg-type]

    engine.upsert = upsert  # type: ignore[method-assign, assignment]
    settings = LoadSettings(snapshot=NOW - timedelta(days=1), changes=hash_encoder)
    with Lease.take(store, JOB, owner="a job") as lease:
        Replaying(engine, store, lease, settings, SilentProgress()).switch(made)
    assert owners == [f"switch to {made.name}"]
    assert stored(engine, made) == {"d1": "new"}
    assert position_of(store, made).applied == 1


def test_changes_are_not_replayed_into_an_adopted_index(tmp_path: Path) -> None:
    engine, store = MemoryEngine(), FolderRecords(tmp_path)
    documents = [Document(f"d{i}", "text", "", f"d{i}", {}) for i in range(3)]
    adopted = Generation(**{
        **{name: getattr(generation(), name) for name in Generation.__dataclass_fields__},
        "name": "theirs", "columns": {"id": "pk"}, "passages": "",
    })  # fmt: skip
    ours = generation(2)
    for one in (adopted, ours):
        fill(engine, one, documents)
    engine.publish(ours)
    note(store, "theirs", {PUBLISHED: NOW.isoformat(), OFF: NOW.isoformat()})
    live(engine, store).delete(["d1"])

    def replayed(*_: object) -> int:
        raise AssertionError("an adopted index is only read")

    with pytest.raises(EngineError, match=r"unknown number of changes .* adopted"):
        rollback(engine, store, replayed, to="theirs")
    done = rollback(engine, store, replayed, to="theirs", accept_stale=True)
    assert (done.after, done.missing, done.stale) == ("theirs", None, True)
    assert set(stored(engine, adopted)) == {"d0", "d1", "d2"}
