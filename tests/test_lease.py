"""Leases between real processes, in a folder and in a real OpenSearch."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from steelyard.errors import EngineError
from steelyard.indexer.lease import (
    JOB,
    WRITE,
    Holder,
    Lease,
    LeaseHeldError,
    LeaseLostError,
    holder_of,
    running_clock,
)
from steelyard.plugin.records import ConflictError, Record, RecordStore
from tests.conftest import ROOT
from tests.lease_process import open_store
from tests.servers.opensearch_node import ask

pytest_plugins = ["tests.servers.opensearch"]

LIFE = 3.0


class Process:
    """``lease_process`` in a process of its own."""

    def __init__(self, place: str, life: float, wait: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.lease_process", place, str(life), str(wait)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert self.heard() == "ready"

    def say(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def heard(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def asked(self) -> str:
        self.say()
        return self.heard()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


Start = Callable[..., Process]


@pytest.fixture(params=["folder", pytest.param("opensearch", marks=pytest.mark.opensearch)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "folder":
        yield str(tmp_path / "records")
        return
    url: str = request.getfixturevalue("opensearch_url")
    yield f"{url.rsplit(':', 1)[1].strip('/')}/leased"
    ask(url, "DELETE", "/steelyard-records-leased?ignore_unavailable=true")


@pytest.fixture
def start(place: str) -> Iterator[Start]:
    made: list[Process] = []

    def starting(life: float = LIFE, wait: float = 0.0) -> Process:
        made.append(Process(place, life, wait))
        return made[-1]

    yield starting
    for process in made:
        process.end()


def test_one_after_the_other(place: str) -> None:
    store = open_store(place)
    with Lease.take(store, JOB, owner="first") as lease:
        lease.check()
        held = holder_of(store, JOB)
        assert held is not None
        assert (held.owner, held.token) == ("first", lease.holder.token)
        with pytest.raises(LeaseHeldError, match=r"'first', process .* since 2") as refused:
            Lease.take(store, JOB, owner="second")
        assert refused.value.holder == held
        with Lease.take(store, WRITE, owner="another name") as other:
            other.renew()
    assert holder_of(store, JOB) is None
    with Lease.take(store, JOB, owner="second") as second:
        assert second.holder.token != lease.holder.token


def test_a_lease_is_renewed_beyond_its_life(place: str, start: Start) -> None:
    holder, other = start(), start()
    assert holder.asked().startswith("held")
    store, begun = open_store(place), running_clock()
    seen = set()
    while running_clock() - begun < 2.5 * LIFE:
        record = store.read("lease-job")
        assert record is not None
        seen.add(record.version)
        assert holder.asked() == "ok"
        time.sleep(0.2)
    assert len(seen) > 4
    assert other.asked() == "refused"


def test_of_two_takers_exactly_one_wins(start: Start) -> None:
    processes = [start(life=60.0) for _ in range(3)]
    for process in processes:
        process.say()
    answers = [process.heard().split()[0] for process in processes]
    assert sorted(answers) == ["held", "refused", "refused"]


def test_the_lease_of_a_process_killed_on_this_machine_is_free(place: str, start: Start) -> None:
    killed = start(life=600.0)
    token = killed.asked().split()[1]
    killed.process.send_signal(signal.SIGKILL)
    killed.process.wait()
    with Lease.take(open_store(place), JOB, owner="us", seconds=LIFE) as lease:
        assert lease.holder.token != token


def test_the_lease_of_a_process_killed_elsewhere_runs_out(place: str, start: Start) -> None:
    killed = start(life=600.0)
    killed.asked()
    killed.process.kill()
    killed.process.wait()
    store = open_store(place)
    found = store.read("lease-job")
    assert found is not None
    elsewhere = {**found.value, "place": "another boot/another namespace", "seconds": LIFE}
    store.write("lease-job", elsewhere, expected=found.version)
    begun = running_clock()
    with pytest.raises(LeaseHeldError):
        Lease.take(store, JOB, owner="us", seconds=LIFE)
    Lease.take(store, JOB, owner="us", seconds=LIFE, wait=20 * LIFE).release()
    assert running_clock() - begun >= LIFE


def test_a_stopped_process_finds_out(place: str, start: Start) -> None:
    stopped, other = start(), start(wait=20 * LIFE)
    assert stopped.asked().startswith("held")
    stopped.process.send_signal(signal.SIGSTOP)
    try:
        assert other.asked().startswith("held")
    finally:
        stopped.process.send_signal(signal.SIGCONT)
    for _ in range(5):
        assert stopped.asked() == "lost"
    assert other.asked() == "ok"
    held = holder_of(open_store(place), JOB)
    assert held is not None
    assert held.pid == other.process.pid


def test_a_stopped_process_finds_out_also_when_nobody_took_it(start: Start) -> None:
    stopped = start(life=1.0)
    assert stopped.asked().startswith("held")
    stopped.process.send_signal(signal.SIGSTOP)
    begun = running_clock()
    while running_clock() - begun < 1.5:
        time.sleep(0.05)
    stopped.process.send_signal(signal.SIGCONT)
    assert stopped.asked() == "lost"


class Flaky:
    """A store of records that can be made to fail, or to answer too late."""

    shared, where = True, "memory"

    def __init__(self) -> None:
        self.held: dict[str, Record] = {}
        self.away = self.late = False
        self.writes = 0
        self._lock = threading.Lock()

    def read(self, key: str) -> Record | None:
        return self.held.get(key)

    def write(self, key: str, value: Mapping[str, Any], *, expected: str | None) -> Record:
        if self.away:
            raise EngineError("the store is away")
        with self._lock:
            found = self.held.get(key)
            if (None if found is None else found.version) != expected:
                raise ConflictError("changed")
            self.writes += 1
            self.held[key] = Record(dict(value), str(self.writes))
        if self.late:
            self.late = False
            raise EngineError("no answer")
        return self.held[key]

    def remove(self, key: str, *, expected: str) -> None:
        if self.held[key].version != expected:
            raise ConflictError("changed")
        del self.held[key]


def flaky() -> Any:
    return Flaky()


def test_a_store_that_is_away_is_asked_until_the_life_is_over() -> None:
    store = flaky()
    with Lease.take(store, JOB, owner="us", seconds=1.0) as lease:
        store.away = True
        with pytest.raises(EngineError, match="the store is away"):
            lease.renew()
        lease.check()
        begun = running_clock()
        while running_clock() - begun < 1.0:
            time.sleep(0.01)
        with pytest.raises(LeaseLostError, match="not renewed for 1 s"):
            lease.check()
        store.away = False
        with pytest.raises(LeaseLostError):
            lease.renew()


def test_long_work_goes_on_with_a_lease_that_nobody_took_meanwhile() -> None:
    store = flaky()
    with Lease.take(store, JOB, owner="us", seconds=1.0) as lease:
        store.away = True
        begun = running_clock()
        while running_clock() - begun < 1.0:
            time.sleep(0.01)
        with pytest.raises(EngineError, match="the store is away"):
            lease.regain()
        with pytest.raises(LeaseLostError, match="not renewed for 1 s"):
            lease.check()
        store.away = False
        lease.regain()
        lease.renew()
        lease.check()
        store.held["lease-job"] = Record({"owner": "them", "token": "x"}, "9")
        with pytest.raises(LeaseLostError, match="'them'"):
            lease.renew()
        with pytest.raises(LeaseLostError, match="'them'"):
            lease.regain()
    assert store.held["lease-job"].value["owner"] == "them"


def test_a_renewal_that_arrived_without_an_answer_is_ours() -> None:
    store = flaky()
    with Lease.take(store, JOB, owner="us") as lease:
        store.late = True
        with pytest.raises(EngineError, match="no answer"):
            lease.renew()
        lease.renew()
        lease.check()
    assert store.held == {}


def test_what_another_has_taken_is_left_alone() -> None:
    store: Any = flaky()
    with Lease.take(store, JOB, owner="us") as lease:
        theirs = {"owner": "them", "host": "elsewhere", "pid": 1, "token": "x", "seconds": 60}
        store.held["lease-job"] = Record(theirs, "9")
        with pytest.raises(LeaseLostError, match="'them', process 1 on elsewhere"):
            lease.renew()
        with pytest.raises(LeaseLostError):
            lease.check()
    assert store.held["lease-job"].value == theirs
    kept: RecordStore = store
    assert holder_of(kept, JOB) == Holder.of(theirs)
