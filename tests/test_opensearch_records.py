"""Records and the log in a real OpenSearch: two writers, lost answers, trimming."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from steelyard.plugin.backoff import Backoff
from steelyard.plugin.engine import Engine
from steelyard.plugin.opensearch import records as module
from steelyard.plugin.opensearch.connection import Connection
from steelyard.plugin.opensearch.engine import OpenSearchEngine
from steelyard.plugin.opensearch.records import OpenSearchRecords
from steelyard.plugin.opensearch.settings import Settings
from steelyard.plugin.paired import PairedEngine
from steelyard.plugin.records import ConflictError, KeepsRecords, RecordStore
from tests.memory_engine import MemoryEngine
from tests.servers.opensearch_node import ask

pytest_plugins = ["tests.servers.opensearch"]
pytestmark = pytest.mark.opensearch


@pytest.fixture
def connection(opensearch_url: str) -> Iterator[Connection]:
    port = int(opensearch_url.rsplit(":", 1)[1].strip("/"))
    made = Connection(Settings("127.0.0.1", port), Backoff(base=0.01))
    yield made
    made.close()


@pytest.fixture
def store(connection: Connection, opensearch_url: str) -> Iterator[OpenSearchRecords]:
    made = OpenSearchRecords(connection, "kept")
    yield made
    ask(opensearch_url, "DELETE", "/steelyard-records-kept?ignore_unavailable=true")


def another(store: OpenSearchRecords) -> OpenSearchRecords:
    """As another process would open it."""
    return OpenSearchRecords(store._connection, "kept")


def values(store: RecordStore, after: int = 0) -> list[tuple[int, Any]]:
    return [(entry.sequence, entry.value["n"]) for entry in store.entries(after)]


def test_where_nothing_was_ever_written(store: OpenSearchRecords) -> None:
    assert store.shared
    assert store.where.endswith("/steelyard-records-kept")
    assert store.read("lease") is None
    assert store.keys() == []
    assert list(store.entries(0)) == []
    assert (store.first_sequence(), store.last_sequence()) == (1, 0)
    assert store.trim(9) == 0
    with pytest.raises(ConflictError):
        store.remove("lease", expected="1.1")


def test_a_record_is_written_once_per_version(store: OpenSearchRecords) -> None:
    value = {"é": [1, 2.5, None, {"": "\udc00"}], "a.b..c": True}
    first = store.write("lease-job", value, expected=None)
    assert first.value == value
    assert another(store).read("lease-job") == first
    with pytest.raises(ConflictError, match="someone else"):
        store.write("lease-job", {}, expected=None)
    second = store.write("lease-job", {"n": 2}, expected=first.version)
    with pytest.raises(ConflictError, match="someone else"):
        store.write("lease-job", {"n": 3}, expected=first.version)
    with pytest.raises(ConflictError):
        store.remove("lease-job", expected=first.version)
    store.write("a", {}, expected=None)
    assert store.keys() == ["a", "lease-job"]
    store.remove("lease-job", expected=second.version)
    assert store.read("lease-job") is None
    assert store.keys() == ["a"]
    store.write("lease-job", {"n": 4}, expected=None)


def test_of_many_writers_exactly_one_wins(store: OpenSearchRecords) -> None:
    start = threading.Barrier(8)

    def write(number: int, expected: str | None) -> bool:
        start.wait()
        try:
            another(store).write("lease", {"n": number}, expected=expected)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        version = None
        for _ in range(5):
            won = list(pool.map(write, range(8), [version] * 8))
            assert won.count(True) == 1
            record = store.read("lease")
            assert record is not None
            assert record.value["n"] == won.index(True)
            version = record.version


def test_the_log_is_numbered_read_and_trimmed(
    store: OpenSearchRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PIECES_A_REQUEST", 2)
    assert store.append([{"n": 1}, {"n": 2}, {"n": 3}]) == 3
    assert values(another(store)) == [(1, 1), (2, 2), (3, 3)]
    monkeypatch.setattr(module, "PIECE_BYTES", 10)
    assert another(store).append([{"n": n} for n in range(4, 10)]) == 9
    assert values(store) == [(n, n) for n in range(1, 10)]
    assert values(store, 2) == [(n, n) for n in range(3, 10)]
    assert values(store, 9) == []
    assert store.append([]) == 9
    assert store.trim(2) == 2
    assert (store.first_sequence(), store.last_sequence()) == (3, 9)
    assert values(store)[0] == (3, 3)
    assert store.trim(1) == 0
    assert store.trim(100) == 7
    assert another(store).trim(100) == 0
    assert (store.first_sequence(), store.last_sequence()) == (10, 9)
    assert values(store) == []
    assert another(store).append([{"n": 10}]) == 10
    assert values(store, 3) == [(10, 10)]
    assert store.keys() == []


def test_two_writers_never_replace_each_others_entries(store: OpenSearchRecords) -> None:
    start = threading.Barrier(4)

    def write(writer: int) -> None:
        start.wait()
        for turn in range(10):
            another(store).append([{"n": f"{writer}-{turn}-{part}"} for part in range(3)])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    found = values(store)
    assert [sequence for sequence, _ in found] == list(range(1, 121))
    told = [value for _, value in found]
    assert len(set(told)) == 120
    for first in range(0, 120, 3):  # each call's entries stand together
        assert {value.rsplit("-", 1)[0] for value in told[first : first + 3]} == {told[first][:-2]}
    for writer in range(4):
        ours = [value for value in told if value.startswith(f"{writer}-")]
        assert ours == sorted(ours)


def test_what_arrived_without_an_answer_is_recognised(
    store: OpenSearchRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opensearchpy import ConnectionError as LostError

    store.append([{"n": 1}])
    transport = store._connection._client.transport
    perform = transport.perform_request
    lost: list[str] = []

    def lose(method: str, path: str, **more: Any) -> Any:
        answer = perform(method, path, **more)
        if method == "PUT" and (not lost or lost[-1] != path):
            lost.append(path)
            raise LostError("N/A", "gone", Exception("gone"))
        return answer

    monkeypatch.setattr(transport, "perform_request", lose)
    record = store.write("lease", {"n": 1}, expected=None)
    assert store.append([{"n": 2}]) == 2
    assert store.write("lease", {"n": 2}, expected=record.version).value == {"n": 2}
    assert store.trim(1) == 1
    assert len(lost) == 4
    monkeypatch.undo()
    assert values(store) == [(2, 2)]
    kept = store.read("lease")
    assert kept is not None
    assert kept.value == {"n": 2}


def test_an_engine_says_whether_it_keeps_records(connection: Connection) -> None:
    opensearch: Engine = OpenSearchEngine(connection, "demo")
    memory: Engine = MemoryEngine("demo")
    assert isinstance(opensearch, KeepsRecords)
    assert not isinstance(memory, KeepsRecords)
    led = PairedEngine(memory, opensearch)
    assert isinstance(led, KeepsRecords)
    assert led.records().where.endswith("/steelyard-records-demo")
    assert not isinstance(PairedEngine(opensearch, memory), KeepsRecords)
