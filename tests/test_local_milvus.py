"""The launcher of a local Milvus: its data stay, its ports are its own, failures are in words."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from steelyard.encoders.folder_lock import locked_file
from steelyard.errors import EngineError
from steelyard.local_servers.errors import MissingProgramError, ServerError
from steelyard.local_servers.folders import data_folder
from steelyard.local_servers.milvus import MilvusProcess, milvus_process, running_milvus
from steelyard.plugin.urls import open_engine
from tests.test_milvus_lite import documents, generation

pytest_plugins = ["tests.servers.milvus"]


@pytest.mark.milvus
def test_data_outlive_the_server_and_a_client_its_restart(
    tmp_path: Path, milvus_server: MilvusProcess
) -> None:
    made = replace(generation(), arms=("dense",))
    with (
        data_folder(tmp_path, "milvus", as_nobody=False) as (folder, lock),
        milvus_process(folder, locks=[lock]) as server,
    ):
        assert server.address != milvus_server.address
        assert folder / ".lock" in open_files(server)
        engine = open_engine(f"milvus://{server.address}/demo")
        engine.create(made)
        engine.upsert(made, documents(40))
        engine.seal(made)
        engine.publish(made)
        index = engine.open(made)
        before = index.dense.search(documents(1).dense, 5)[0].ids
        port = int(server.address.split(":")[1])
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)
    with pytest.raises(EngineError, match="no answer from"):
        index.dense.search(documents(1).dense, 5, timeout=1)
    with running_milvus(tmp_path, port=port) as address:
        assert address == server.address
        assert engine.resolve() == made
        again = engine.open(made)
        assert again.count() == 40
        assert again.dense.search(documents(1).dense, 5, timeout=60)[0].ids == before
    engine.close()


def open_files(server: MilvusProcess) -> set[Path]:
    # Some are closed while they are looked at: they resolve to themselves.
    return {link.resolve() for link in Path(f"/proc/{server.pid}/fd").iterdir()}


@pytest.mark.milvus
def test_a_server_holds_the_lock_of_its_temporary_folder(milvus_server: MilvusProcess) -> None:
    folder = milvus_server.log.parents[1]
    assert folder / ".lock" in open_files(milvus_server)
    with pytest.raises(BlockingIOError), locked_file(folder / ".lock", wait=False):
        pass


@pytest.mark.milvus
def test_what_cannot_start_shows_its_log(tmp_path: Path) -> None:
    taken = tmp_path / "data"
    taken.mkdir()
    (taken / "etcd").write_text("not a folder", encoding="utf-8")
    with (
        pytest.raises(ServerError, match=r"(?s)Milvus ended with -?\d+; .*not a directory"),
        running_milvus(tmp_path),
    ):
        pass


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingProgramError) as caught, running_milvus():
        pass
    assert caught.value.hint == "pip install milvus==2.3.5"
