"""Verify, switch, roll back, collect, list and abort: on Milvus Lite, OpenSearch and a pair."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from steelyard.errors import EngineError, InputError, PackMismatchError
from steelyard.indexer.changes.positions import position_of
from steelyard.indexer.generations.abort import abandon
from steelyard.indexer.generations.gc import sweep
from steelyard.indexer.generations.history import DROPPING, OFF, known, names, note, notes
from steelyard.indexer.generations.listing import job_of, listing
from steelyard.indexer.generations.verify import joined, sample_of, verify
from steelyard.indexer.lease import JOB, Lease, LeaseHeldError, LeaseLostError
from steelyard.plugin.records import Record
from steelyard.types import SparseVectors
from tests.generation_steps import DOCUMENTS, LIFE, Side, clean, named
from tests.test_cli import fails, ok

pytest_plugins = ["tests.servers.opensearch", "tests.servers.milvus"]

HERE = ["lite", pytest.param("opensearch", marks=pytest.mark.opensearch)]
EVERYWHERE = [
    *HERE,
    pytest.param("pair", marks=[pytest.mark.opensearch, pytest.mark.milvus]),
]


@pytest.fixture(params=HERE)
def side(request: pytest.FixtureRequest, tiny_pack: Path, tmp_path: Path) -> Iterator[Side]:
    """An empty engine."""
    lite = f"milvus-lite://{tmp_path / 'here.db'}?name=kept"
    if request.param == "lite":
        made = Side(lite, tiny_pack)
        yield made
        made.close()
        return
    node: str = request.getfixturevalue("opensearch_url")
    url = f"opensearch://{urlsplit(node).netloc}/kept"
    if request.param == "pair":
        url = f"dense=milvus://{request.getfixturevalue('milvus_address')}/kept,sparse={url}"
    made = Side(url, tiny_pack)
    yield made
    clean(made, node)


def everything(side: Side) -> dict[str, Record | None]:
    """All records."""
    keys = side.store.keys()
    return {key: side.store.read(key) for key in keys}


@pytest.mark.parametrize("side", EVERYWHERE, indirect=True)
def test_what_was_sent_is_verified_and_what_was_not_is_refused(side: Side) -> None:
    generation, content = side.load(1), side.content(1)
    index = side.engine.open(generation)
    parts = [sample_of(content, 8), sample_of(side.content(1, 3))]
    sample = joined(parts, generation.vocabulary_size, generation.dims)
    assert len(sample) == 8 + 3
    report = verify(index, DOCUMENTS, sample, generation.scale)
    assert (report.documents, report.sampled) == (DOCUMENTS, 11)
    assert report.queries == 22
    assert verify(index, None, sample_of(side.content(1, 0)), 100.0).sampled == 0
    with pytest.raises(EngineError, match="counts 40 documents, 41 were sent"):
        verify(index, 41, sample, generation.scale)
    other = replace(content, dense=content.dense + np.float32(3e-5))
    with pytest.raises(EngineError, match=r"dense vector of 'd0' in kept_.* differs by 3e-05"):
        verify(index, 40, other, generation.scale)
    heavier = SparseVectors(
        content.sparse.indptr,
        content.sparse.ids,
        content.sparse.weights + np.float32(0.01),
        content.sparse.vocabulary_size,
    )
    with pytest.raises(EngineError, match=r"'d0' has 4 terms of impact .* in kept_"):
        verify(index, 40, replace(content, sparse=heavier), generation.scale)
    with pytest.raises(EngineError, match="lacks 1 of 41 sampled documents: 'd40'"):
        verify(index, 40, side.content(1, 41), generation.scale)


def test_a_document_that_no_search_finds_is_noticed(side: Side) -> None:
    generation, content = side.load(1), side.content(1)
    index = side.engine.open(generation)

    class Forgetful:
        """Finds only documents of the other half."""

        def __init__(self, arm: object) -> None:
            self.arm = arm

        def search(self, queries: object, k: int) -> object:
            return [
                replace(found, ids=["x"] * len(found.ids), scores=found.scores - 1)
                for found in self.arm.search(queries, k)  # type: ignore[attr-defined]
            ]

    index.dense = Forgetful(index.dense)  # type: ignore[assignment, misc]
    with pytest.raises(
        EngineError, match=r"not found in kept_.* by their own dense vectors, 'd0' first"
    ):
        verify(index, DOCUMENTS, sample_of(content, 5), generation.scale)


@pytest.mark.parametrize("side", EVERYWHERE, indirect=True)
def test_switch_rollback_and_what_is_kept(side: Side) -> None:
    first = side.load(1)
    side.switch(first)
    side.upsert("d3", 30)
    side.change({"op": "delete", "ids": ["d5"]})
    second = side.load(2)
    assert side.current() == 1
    side.switch(second)
    assert side.current() == 2
    # The log began after the snapshot of the second: it has both changes.
    stored = side.stored(second)
    assert (len(stored), stored["d3"], stored.get("d5"), stored["d4"]) == (39, 30, None, 2)
    assert position_of(side.store, second).applied == 2
    side.upsert("new", 99)
    listed = listing(side.engine, side.store)
    assert [(one.state, one.documents, one.behind) for one in listed] == [
        ("current", 40, 0),
        ("kept", 40, 1),
    ]
    done = side.rollback()
    assert (done.before, done.after) == (second.name, first.name)
    assert (done.replayed, done.missing, done.stale) == (1, 0, False)
    stored = side.stored(first)
    assert (len(stored), stored["d3"], stored["new"], stored["d4"]) == (40, 30, 99, 1)
    with pytest.raises(InputError, match="no generation before kept_20260101000001"):
        side.rollback()
    assert side.rollback(to=first.name).replayed == 0  # it is there already
    third = side.load(3)
    side.switch(third)
    # The second was bad: from the third it goes back to what was searched last, the first.
    assert side.rollback().after == first.name
    assert side.rollback(to=third.name).after == third.name
    report = side.sweep(keep=1)
    assert (report.dropped, report.kept) == ([second.name], [first.name])
    assert side.numbers() == [3, 1]
    assert names(side.store) == {first.name, third.name}
    assert side.sweep(keep=0).dropped == [first.name]
    assert (side.numbers(), side.current()) == ([3], 3)


def test_without_an_encoder_a_rollback_is_refused_or_knowingly_stale(side: Side) -> None:
    first = side.load(1)
    side.switch(first)
    second = side.load(2)
    side.switch(second)
    side.upsert("new", 99)
    side.upsert("newer", 99)

    def no_encoder(*_: object, **__: object) -> int:
        raise PackMismatchError("no pack of these spaces")

    side.replay, replaying = no_encoder, side.replay  # type: ignore[method-assign]
    with pytest.raises(
        EngineError, match=r"2 changes are missing in .*: no pack of these"
    ) as told:
        side.rollback()
    assert "--accept-stale" in told.value.hint
    assert side.current() == 2
    done = side.rollback(accept_stale=True)
    assert (done.missing, done.stale, done.replayed) == (2, True, 0)
    assert side.current() == 1
    side.replay = replaying  # type: ignore[method-assign]
    side.upsert("newest", 99)  # the next change catches up
    assert {"new", "newer", "newest"} <= set(side.stored(first))


def test_what_was_trimmed_cannot_be_replayed(side: Side) -> None:
    first = side.load(1)
    side.switch(first)
    side.switch(side.load(2))
    side.upsert("new", 99)
    side.store.trim(1)
    with pytest.raises(EngineError, match=r"1 changes are missing .* no longer in the log"):
        side.rollback()
    assert side.rollback(accept_stale=True).missing == 1


def test_what_a_dead_job_left_goes_and_a_live_jobs_does_not(side: Side) -> None:
    side.switch(side.load(1))
    side.load(2)
    side.switch(side.load(3))
    side.load(4)
    with pytest.raises(InputError, match="was never published"):
        side.rollback(to=named(side, 2))
    with pytest.raises(InputError, match="is not there"):
        side.rollback(to=named(side, 9))
    states = [one.state for one in listing(side.engine, side.store)]
    assert states == ["unfinished", "current", "unfinished", "kept"]
    assert job_of(side.store) == ""
    with Lease.take(side.store, JOB, owner="the nightly job", seconds=60) as lease:
        assert "the nightly job" in job_of(side.store)
        report = side.sweep(keep=0)
        assert report.dropped == [named(side, 1)]
        assert report.job is not None
        assert report.job.owner == "the nightly job"
        own = sweep(side.engine, side.store, keep=0, own=named(side, 4), lease=lease, seconds=LIFE)
        assert own.dropped == [named(side, 2)]
    assert side.numbers() == [4, 3]
    assert side.sweep().dropped == [named(side, 4)]


def test_a_dry_run_changes_nothing_and_grace_is_waited_for(side: Side) -> None:
    for number in (1, 2):
        side.switch(side.load(number))
    old = (datetime.now(timezone.utc) - timedelta(seconds=100)).isoformat()
    for number in (1, 2):
        side.upsert(f"e{number}", 1)
    side.rollback()
    side.rollback(to=named(side, 2))
    before = everything(side)
    dry = sweep(side.engine, side.store, keep=0, dry_run=True, grace=0, keep_changes=timedelta(0))
    assert (dry.dropped, dry.trimmed) == ([named(side, 1)], 1)
    early = sweep(side.engine, side.store, keep=0, grace=60)
    assert (early.dropped, early.waiting) == ([], [named(side, 1)])
    assert everything(side) == before
    assert side.numbers() == [2, 1]
    note(side.store, named(side, 1), {OFF: old})
    done = sweep(side.engine, side.store, keep=0, grace=60, keep_changes=timedelta(0))
    assert (done.dropped, done.trimmed) == ([named(side, 1)], 1)
    # The last one stays: its time says which corpora the log can still complete.
    assert (side.store.first_sequence(), side.store.last_sequence()) == (2, 2)


def test_what_was_half_dropped_is_never_gone_back_to(side: Side) -> None:
    first = side.load(1)
    side.switch(first)
    side.switch(side.load(2))
    note(side.store, first.name, {DROPPING: "2026-01-01T00:00:00+00:00"})
    assert [one.state for one in listing(side.engine, side.store)] == ["current", "dropping"]
    with pytest.raises(InputError, match="no generation before"):
        side.rollback()
    assert side.sweep(keep=5).dropped == [first.name]


@pytest.mark.parametrize("side", EVERYWHERE, indirect=True)
def test_an_interrupted_job_is_given_up(side: Side, tmp_path: Path) -> None:
    side.switch(side.load(1))
    begun, other = side.load(2), side.load(3)
    journal = tmp_path / "sinks" / "x.jsonl"
    journal.parent.mkdir()
    journal.write_text("{}\n", encoding="utf-8")
    with (
        Lease.take(side.store, JOB, owner="the nightly job", seconds=60),
        pytest.raises(LeaseHeldError, match="the nightly job"),
    ):
        abandon(side.engine, side.store, generation=begun.name, journal=journal)
    with pytest.raises(InputError, match="was published"):
        abandon(side.engine, side.store, generation=named(side, 1), journal=journal)
    assert journal.exists()
    done = abandon(side.engine, side.store, generation=begun.name, journal=journal, seconds=LIFE)
    assert (done.dropped, done.journal) == ([begun.name], True)
    assert not journal.parent.exists()
    assert side.numbers() == [3, 1]
    again = abandon(side.engine, side.store, generation=begun.name, journal=journal, seconds=LIFE)
    assert (again.dropped, again.journal) == ([], False)
    assert abandon(side.engine, side.store, seconds=LIFE).dropped == [other.name]
    assert (side.numbers(), side.current()) == ([1], 1)


def test_who_has_lost_the_lease_publishes_nothing(side: Side) -> None:
    from steelyard.indexer.generations.switch import switch

    first, second = side.load(1), side.load(2)
    side.switch(first)
    lease = Lease.take(side.store, JOB, owner="a job", seconds=LIFE)

    def lose() -> int:
        found = side.store.read("lease-job")
        assert found is not None
        theirs = {**found.value, "owner": "theirs", "token": "theirs"}
        while True:
            try:
                side.store.write("lease-job", theirs, expected=found.version)
            except EngineError:
                found = side.store.read("lease-job")
                assert found is not None
            else:
                return 0

    with lease, pytest.raises(LeaseLostError):
        switch(side.engine, second, side.store, lose, lease, seconds=LIFE)
    assert side.current() == 1
    assert "published" not in notes(side.store, second.name)


def test_notes_are_mended_from_the_alias(side: Side) -> None:
    """A process was killed right after it moved the alias; or knew nothing of notes."""
    first, second = side.load(1), side.load(2)
    side.engine.publish(first)
    side.engine.publish(second)
    assert [one.kept for one in known(side.engine, side.store)] == [False, False]
    side.switch(side.load(3))
    assert {one.name: one.kept for one in known(side.engine, side.store)} == {
        named(side, 3): False,
        second.name: True,
        first.name: False,
    }
    side.engine.publish(second)
    report = side.sweep(keep=1)
    assert report.kept == [named(side, 3)]
    assert side.numbers() == [3, 2]
    assert OFF in notes(side.store, named(side, 3))
    assert OFF not in notes(side.store, second.name)


def test_the_commands(side: Side, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        side.switch(side.load(number))
    side.change({"op": "delete", "ids": ["d1", "d2"]})
    side.close()
    out = tmp_path / "out.json"

    def told() -> dict[str, object]:
        value: dict[str, object] = json.loads(out.read_text(encoding="utf-8"))
        return value

    ok("generations", "--to", side.url, "--json", out)
    found = told()["generations"]
    assert isinstance(found, list)
    assert [(one["state"], one["documents"], one["behind"]) for one in found] == [
        ("current", 38, 0),
        ("kept", 40, 1),
        ("kept", 40, 1),
    ]
    ok("rollback", "--to", side.url, "--json", out)  # deletes need no pack
    assert (told()["after"], told()["replayed"]) == (named(side, 2), 1)
    fails(2, "searchers need up to 50 s", "gc", "--to", side.url, "--grace", "10s")
    ok("gc", "--to", side.url, "--keep", 1, "--grace", "1h", "--dry-run", "--json", out)
    assert (told()["dropped"], told()["waiting"]) == ([], [named(side, 1)])
    again = Side(side.url, side.pack)
    long_ago = "2026-01-01T00:00:00+00:00"
    note(again.store, named(again, 1), {OFF: long_ago})
    again.upsert("d7", 8)
    again.close()
    ok("gc", "--to", side.url, "--keep", 1, "--json", out)
    assert told()["dropped"] == [named(side, 1)]
    third = ("--to", side.url, "--generation", named(side, 3))
    fails(4, "1 changes are missing", "rollback", *third)
    ok("rollback", *third, "--accept-stale", "--json", out)
    assert (told()["stale"], told()["missing"]) == (True, 1)
