"""``steelyard status`` of an index, on a real engine; and of folders of shards."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steelyard.indexer.reporting.index_status import index_status
from steelyard.indexer.reporting.job_status import folder_status
from steelyard.plugin.engine import Engine, Generation
from steelyard.plugin.records import LogEntry, Record
from steelyard.plugin.urls import open_engine
from steelyard.types import Document, EncodedDocuments, SparseVectors

BIN = Path(sys.executable).parent / "steelyard"
NEW, OLD = "demo_20260302000000_bbbbbbbb", "demo_20260301000000_aaaaaaaa"


def generation(name: str) -> Generation:
    return Generation(
        name=name, dense_space="dense", sparse_space="sparse", pack_id="pack-1", content="c",
        dims=4, vocabulary_size=10, scale=100.0, fields={},
    )  # fmt: skip


def documents(count: int) -> EncodedDocuments:
    rows = [(np.array([i], np.int32), np.ones(1, np.float32)) for i in range(count)]
    return EncodedDocuments(
        [Document(f"d{i}", "text", "", f"d{i}", {}) for i in range(count)],
        np.eye(4, dtype=np.float32)[:count],
        SparseVectors.from_rows(rows, 10),
    )


class Records:
    """What stands in a store; reading is all that status does."""

    shared, where = True, "beside the index"

    def __init__(self, values: dict[str, dict[str, Any]]) -> None:
        self.values = values

    def read(self, key: str) -> Record | None:
        return Record(self.values[key], "1") if key in self.values else None

    def write(self, key: str, value: Mapping[str, Any], *, expected: str | None) -> Record:
        raise AssertionError("status writes nothing")

    def remove(self, key: str, *, expected: str) -> None:
        raise AssertionError("status writes nothing")

    def keys(self) -> list[str]:
        return [*sorted(self.values), "gone-since"]

    def append(self, values: Sequence[Mapping[str, Any]]) -> int:
        raise AssertionError("status writes nothing")

    def entries(self, after: int) -> Iterator[LogEntry]:
        raise AssertionError("status reads no entries")

    def last_sequence(self) -> int:
        return 9

    def first_sequence(self) -> int:
        return 3

    def trim(self, through: int) -> int:
        raise AssertionError("status writes nothing")


@pytest.fixture
def filled(engine: Engine) -> Engine:
    """One published generation of three documents, and a newer one that is not."""
    for name, count in ((OLD, 3), (NEW, 2)):
        engine.create(generation(name))
        engine.upsert(generation(name), documents(count))
        engine.seal(generation(name))
    engine.publish(generation(OLD))
    return engine


def test_an_index(filled: Engine) -> None:
    found = index_status(filled, "milvus-lite:///nowhere")
    assert [(g.name, g.count, g.published) for g in found.generations] == [
        (NEW, 2, False), (OLD, 3, True),
    ]  # fmt: skip
    assert found.current is not None
    assert found.current.pack_id == "pack-1"
    assert any(f"{NEW} is newer" in what for what in found.missing)


def test_what_was_gone_back_from_is_not_what_a_job_left(
    filled: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Records({f"history-{NEW}": {"published": "2026-03-02T00:00:00+00:00"}})
    monkeypatch.setattr(type(filled), "records", lambda _: records, raising=False)
    assert index_status(filled, "").missing == []


def test_positions_and_leases(filled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records({f"generation-{OLD}": {"applied": 7}, "lease-job": {"owner": "me"}})
    monkeypatch.setattr(type(filled), "records", lambda _: records, raising=False)
    found = index_status(filled, "")
    assert found.records is not None
    assert found.records.position(OLD) == 7
    assert found.records.position(NEW) is None
    assert found.records.records["lease-job"] == {"owner": "me"}
    assert any("2 live changes are in the log" in what for what in found.missing)


def test_the_command(tmp_path: Path) -> None:
    url = f"milvus-lite://{tmp_path / 'engine.db'}?name=demo"

    def status(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(BIN), "status", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    missing = status("--to", url)
    assert missing.returncode == 4
    assert "Traceback" not in missing.stderr
    engine = open_engine(url)
    engine.create(generation(OLD))
    engine.upsert(generation(OLD), documents(3))
    engine.seal(generation(OLD))
    engine.publish(generation(OLD))
    engine.close()
    shown = status("--to", url)
    assert shown.returncode == 0, shown.stderr
    assert OLD in shown.stdout
    assert "published" in shown.stdout
    told = json.loads(status("--to", url, "--json").stdout)
    assert [(g["name"], g["count"]) for g in told["generations"]] == [(OLD, 3)]
    assert status(str(tmp_path), "--to", url).returncode == 2
    assert "holds neither a job nor shards" in status(str(tmp_path)).stderr
    assert "no folder" in status(str(tmp_path / "nowhere")).stderr


def test_shards_and_sinks_of_a_job_that_left_no_word(tmp_path: Path) -> None:
    lines = [{"plan": 1}, *({"name": f"shard-{i}", "documents": 10} for i in range(3))]
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(v) + "\n" for v in lines) + '{"na')
    (tmp_path / "sinks").mkdir()
    sink = [
        {"sink": "opensearch://u:secret-word@host/demo", "generation": json.dumps({"name": NEW})},
        {"shard": "shard-0", "documents": 10},
        {"shard": "shard-1", "documents": 10},
    ]
    journal = tmp_path / "sinks" / "ab12.jsonl"
    journal.write_text("".join(json.dumps(value) + "\n" for value in sink))
    (tmp_path / "sinks" / "ab12.rejected.jsonl").write_text("")
    found = folder_status(tmp_path)
    assert found.shards is not None
    assert (found.shards.shards, found.shards.documents, found.shards.complete) == (3, 30, False)
    (one,) = found.sinks
    assert (one.generation, one.shards, one.steps) == (NEW, 2, [])
    assert "secret-word" not in json.dumps(found.as_json())
    assert found.continue_with is None
    assert [what.split(":")[0] for what in found.missing] == [
        "encoding is not complete", f"{NEW} is not published",
    ]  # fmt: skip
    (tmp_path / "manifest.json").write_text("{}")
    with journal.open("a") as stream:
        stream.writelines(json.dumps({"step": step}) + "\n" for step in ("sealed", "published"))
    assert folder_status(tmp_path).missing == []
