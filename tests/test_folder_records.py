"""Records and the log in a folder: what crashes, full disks and other processes do to them."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from steelyard.errors import EngineError, InputError
from steelyard.indexer.records_place import records_folder
from steelyard.plugin.folder_records import FolderRecords
from steelyard.plugin.records import ConflictError, RecordStore

APPEND_FOR_EVER = """
import sys
from pathlib import Path
from steelyard.plugin.folder_records import FolderRecords
store = FolderRecords(Path(sys.argv[1]), segment_bytes=20_000)
print("ready", flush=True)
while True:
    print(store.append([{"text": "x" * 700, "n": n} for n in range(3)]), flush=True)
"""

COUNT_TOGETHER = """
import sys
from pathlib import Path
from steelyard.plugin.folder_records import FolderRecords
from steelyard.plugin.records import ConflictError
store, done = FolderRecords(Path(sys.argv[1])), 0
while done < int(sys.argv[2]):
    record = store.read("count")
    value, version = (0, None) if record is None else (record.value["n"], record.version)
    try:
        store.write("count", {"n": value + 1}, expected=version)
    except ConflictError:
        continue
    store.append([{"n": value + 1}])
    done += 1
"""


@pytest.fixture
def store(tmp_path: Path) -> FolderRecords:
    return FolderRecords(tmp_path / "records", segment_bytes=2_000)


def sequences(store: RecordStore, after: int = 0) -> list[int]:
    return [entry.sequence for entry in store.entries(after)]


def value_of(store: RecordStore, key: str) -> Mapping[str, Any]:
    record = store.read(key)
    assert record is not None
    return record.value


def log_files(store: FolderRecords) -> list[Path]:
    return sorted((store.folder / "log").glob("*.log"))


def test_is_a_record_store(store: FolderRecords) -> None:
    checked: RecordStore = store
    assert not checked.shared
    assert checked.where == str(store.folder)


def test_reading_makes_nothing(store: FolderRecords) -> None:
    assert store.read("lease") is None
    assert store.keys() == []
    assert sequences(store) == []
    assert (store.first_sequence(), store.last_sequence()) == (1, 0)
    assert not store.folder.exists()


def test_a_record_is_written_only_over_the_version_that_was_read(store: FolderRecords) -> None:
    first = store.write("lease", {"owner": "é"}, expected=None)
    assert store.read("lease") == first
    with pytest.raises(ConflictError, match="there already"):
        store.write("lease", {"owner": "b"}, expected=None)
    second = store.write("lease", {"owner": "b"}, expected=first.version)
    with pytest.raises(ConflictError):
        store.write("lease", {"owner": "c"}, expected=first.version)
    with pytest.raises(ConflictError):
        store.remove("lease", expected=first.version)
    assert store.read("lease") == second


def test_a_record_made_anew_has_another_version(store: FolderRecords) -> None:
    first = store.write("a", {}, expected=None)
    store.remove("a", expected=first.version)
    assert store.read("a") is None
    with pytest.raises(ConflictError):
        store.write("a", {}, expected=first.version)
    assert store.write("a", {}, expected=None).version != first.version


def test_keys_are_names_of_files_and_nothing_more(store: FolderRecords) -> None:
    for key in ("generation-x_1", ".lease", "a.json", ".."):
        store.write(key, {"key": key}, expected=None)
    assert store.keys() == sorted(["generation-x_1", ".lease", "a.json", ".."])
    keys = store.keys()
    assert all(value_of(store, key) == {"key": key} for key in keys)
    for bad in ("", "a/b", "../x", "a\0", "x" * 201):
        with pytest.raises(InputError):
            store.read(bad)


def test_a_damaged_record_is_told(store: FolderRecords) -> None:
    store.write("a", {}, expected=None)
    (store.folder / "records" / "a.json").write_text("{")
    with pytest.raises(EngineError, match=r"a\.json is damaged"):
        store.read("a")


def test_entries_are_numbered_over_files(store: FolderRecords) -> None:
    for n in range(10):
        assert store.append([{"n": n, "text": "\u2028\n" * 99}, {"n": n}]) == 2 * n + 2
    assert len(log_files(store)) > 2
    assert sequences(store) == list(range(1, 21))
    for after in (0, 1, 7, 19, 20, 99):
        assert sequences(store, after) == list(range(after + 1, 21))
    assert next(store.entries(18)).value == {"n": 9, "text": "\u2028\n" * 99}
    assert store.append([]) == 20


def test_another_store_of_the_folder_goes_on(store: FolderRecords) -> None:
    store.append([{"a": 1}])
    other = FolderRecords(store.folder, segment_bytes=2_000)
    assert other.append([{"a": 2}]) == 2
    assert store.append([{"a": 3}]) == 3
    assert [entry.value["a"] for entry in other.entries(0)] == [1, 2, 3]


def test_a_reader_sees_what_is_appended_while_it_reads(store: FolderRecords) -> None:
    store.append([{"text": "x" * 900}] * 3)
    reading = store.entries(0)
    assert next(reading).sequence == 1
    store.append([{"text": "x" * 900}] * 3)
    assert [entry.sequence for entry in reading] == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("through", [0, 1, 6, 7, 19, 20, 99])
def test_trimmed_entries_are_forgotten_and_their_numbers_are_not(
    store: FolderRecords, through: int
) -> None:
    for n in range(20):
        store.append([{"n": n, "text": "x" * 400}])
    files = len(log_files(store))
    kept = list(range(min(through, 20) + 1, 21))
    assert store.trim(through) == 20 - len(kept)
    assert store.trim(through) == 0
    assert sequences(store) == kept
    assert (store.first_sequence(), store.last_sequence()) == (min(through, 20) + 1, 20)
    assert (len(log_files(store)) < files) == (through > 5)
    again = FolderRecords(store.folder, segment_bytes=2_000)
    assert again.append([{"n": 20}]) == 21
    assert sequences(again) == [*kept, 21]


def test_trimming_while_a_reader_reads_is_told(store: FolderRecords) -> None:
    for _ in range(20):
        store.append([{"text": "x" * 900}])
    reading = store.entries(0)
    next(reading)
    store.trim(15)
    with pytest.raises(EngineError, match=r"missing|trimmed while"):
        list(reading)


@pytest.mark.parametrize("torn", [b"21 0000", b"21 00000000 {}\n", b"\0" * 300, b"21"])
def test_a_torn_last_line_is_cut_off(store: FolderRecords, torn: bytes) -> None:
    store.append([{"n": n} for n in range(20)])
    with log_files(store)[-1].open("ab") as stream:
        stream.write(torn)
    assert sequences(store) == list(range(1, 21))
    assert store.last_sequence() == 20
    assert FolderRecords(store.folder).append([{"n": 20}]) == 21
    assert [entry.value["n"] for entry in store.entries(0)] == list(range(21))
    lines = log_files(store)[-1].read_bytes().splitlines()
    assert [int(line.split()[0]) for line in lines] == list(range(1, 22))


def test_damage_in_the_middle_is_told_and_not_cut_off(store: FolderRecords) -> None:
    store.append([{"n": n} for n in range(20)])
    path = log_files(store)[0]
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'{"n":7}', b'{"n":8}', 1))
    other = FolderRecords(store.folder)
    with pytest.raises(EngineError, match="entry 8 cannot be read"):
        list(other.entries(0))
    with pytest.raises(EngineError, match="entry 8 cannot be read"):
        other.append([{}])
    path.write_bytes(whole)
    assert len(sequences(other)) == 20


def test_a_missing_file_is_told(store: FolderRecords) -> None:
    for _ in range(20):
        store.append([{"text": "x" * 900}])
    log_files(store)[2].unlink()
    with pytest.raises(EngineError, match=r"entry \d+ is missing"):
        sequences(store)


def test_nothing_stays_of_an_append_that_does_not_fit(store: FolderRecords) -> None:
    store.append([{"n": 1}])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        with pytest.raises(EngineError, match="could not write to the log"):
            store.append([{"text": "x" * 100}] * 9)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert sequences(store) == [1]
    assert store.append([{"n": 2}]) == 2


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="could not"):
        FolderRecords(tmp_path / "file" / "records").append([{}])


def test_processes_and_threads_exclude_each_other(store: FolderRecords) -> None:
    each, processes = 40, 4
    running = [
        subprocess.Popen([sys.executable, "-c", COUNT_TOGETHER, str(store.folder), str(each)])
        for _ in range(processes)
    ]
    with ThreadPoolExecutor(4) as threads:
        mine = list(threads.map(lambda n: store.append([{"mine": n}]), range(100)))
    assert [process.wait() for process in running] == [0] * processes
    assert len(set(mine)) == 100
    assert value_of(store, "count") == {"n": each * processes}
    values = [entry.value for entry in store.entries(0)]
    assert len(values) == store.last_sequence() == each * processes + 100
    assert {value["n"] for value in values if "n" in value} == set(range(1, each * processes + 1))


def test_a_writer_that_is_killed_loses_nothing_it_acknowledged(store: FolderRecords) -> None:
    kills = int(os.environ.get("STEELYARD_KILLS", "8"))
    for kill in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-c", APPEND_FOR_EVER, str(store.folder)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        with process.stdout as said:
            # The first line says that it has started; then so many appends are let pass.
            last = list(itertools.islice(said, 2 + kill % 5))[-1]
            process.kill()
            rest = said.read().split("\n")
        process.wait()
        whole = [line for line in rest[:-1] if line]
        acknowledged = int(whole[-1] if whole else last)
        found = sequences(store)
        assert found == list(range(1, len(found) + 1))
        assert len(found) >= acknowledged


def test_the_folder_of_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEELYARD_STATE", str(tmp_path / "state"))
    assert records_folder(f"milvus-lite:{tmp_path}/a.db?name=x") == tmp_path / "a.db.steelyard/x"
    assert records_folder(f"lucene:{tmp_path}/idx") == tmp_path / "idx.steelyard/documents"
    server = tmp_path / "state" / "milvus_host_19530_x"
    assert records_folder("milvus://host:19530/x") == server
    pair = f"sparse=milvus://host:19530/x,dense=milvus-lite:{tmp_path}/a.db?name=x"
    assert records_folder(pair) == server
    monkeypatch.delenv("STEELYARD_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert records_folder("milvus://h/x") == tmp_path / "xdg" / "steelyard" / "milvus_h_x"
