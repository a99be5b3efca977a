"""Encoding on a Ray cluster gives the shards of one process, whoever dies meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from steelyard.encoders.documents.protocol import DocumentEncoder
from steelyard.errors import InputError, SteelyardError
from steelyard.indexer.encoding.encode import encode_corpus, plan_encoding
from steelyard.indexer.encoding.manifest import EncodingPlan, Manifest
from steelyard.indexer.encoding.shards import read_shard
from steelyard.indexer.ray.encoder import RayEncoder
from steelyard.indexer.ray.fault_handlers import kept_fault_handlers
from steelyard.indexer.ray.settings import RaySettings
from steelyard.indexer.reading.corpus import Corpus
from steelyard.indexer.reading.readers import open_corpus
from steelyard.progress import SilentProgress
from tests.conftest import write_jsonl
from tests.table_tower import (
    DIMS,
    VOCABULARY,
    KillsItself,
    TableTower,
    WaitsForFile,
    refuses,
)

pytestmark = pytest.mark.ray

TWO = RaySettings(actors=2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two workers of one processor each, and a head that has none."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        with kept_fault_handlers():
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        cluster.wait_for_nodes()
        yield cluster
    finally:
        with kept_fault_handlers():
            ray.shutdown()
            cluster.shutdown()


def corpus_of(folder: Path, count: int = 57) -> Corpus:
    lines: list[Any] = [
        {"_id": f"d{i}", "text": f"{'deadly ' if i == 23 else ''}document {i} " + "x" * (i % 17)}
        for i in range(count)
    ]
    lines[5] = {"_id": "d5", "text": "a poison document"}
    lines[30] = {"_id": "d3", "text": "a second d3"}
    return open_corpus(write_jsonl(folder / "c.jsonl", lines))


def plan_for(corpus: Corpus) -> EncodingPlan:
    return plan_encoding(
        corpus,
        dense_space="dense-0",
        sparse_space="sparse-0",
        vocabulary_size=VOCABULARY,
        dims=DIMS,
        precision="float32",
        shard_documents=5,
    )


def never() -> DocumentEncoder:
    raise AssertionError("the driver opened the model")


def on_ray(
    corpus: Corpus,
    folder: Path,
    opener: Callable[[], DocumentEncoder] = TableTower,
    settings: RaySettings = TWO,
    say: Callable[[str], None] = lambda _: None,
) -> Manifest:
    plan = plan_for(corpus)
    encoder = RayEncoder(opener, plan, settings, say)
    return encode_corpus(corpus, plan, never, folder, SilentProgress(), encoder=encoder)


def at_home(corpus: Corpus, folder: Path) -> Manifest:
    return encode_corpus(corpus, plan_for(corpus), TableTower, folder, SilentProgress())


def assert_same(one: Path, other: Path) -> None:
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    assert "shard-00010.parquet" in names
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_the_shards_are_those_of_one_process(tmp_path: Path, cluster: Any) -> None:
    corpus = corpus_of(tmp_path)
    expected = at_home(corpus, tmp_path / "home")
    assert (expected.read, expected.encoded, expected.rejected) == (57, 55, 2)
    assert on_ray(corpus, tmp_path / "ray") == expected
    assert_same(tmp_path / "ray", tmp_path / "home")


def test_a_killed_worker_costs_nothing(tmp_path: Path, cluster: Any) -> None:
    corpus = corpus_of(tmp_path)
    expected = at_home(corpus, tmp_path / "home")
    said: list[str] = []
    killer = KillsItself(tmp_path / "killed")
    assert on_ray(corpus, tmp_path / "ray", killer, say=said.append) == expected
    assert (tmp_path / "killed").exists()
    assert said == ["an encoder process died: documents from 'd20' on go to another"]
    assert_same(tmp_path / "ray", tmp_path / "home")


def test_documents_that_kill_every_worker_stop_the_job_and_it_can_go_on(
    tmp_path: Path, cluster: Any
) -> None:
    corpus = corpus_of(tmp_path)
    expected = at_home(corpus, tmp_path / "home")
    with pytest.raises(SteelyardError, match=r"3 encoder processes died at .* 'd20'"):
        on_ray(corpus, tmp_path / "ray", KillsItself(None))
    done = sorted(path.name for path in (tmp_path / "ray").glob("*.parquet"))
    assert done == [f"shard-{number:05d}.parquet" for number in range(4)]
    # The same job goes on in one process: where a shard was made does not matter.
    assert at_home(corpus, tmp_path / "ray") == expected
    assert_same(tmp_path / "ray", tmp_path / "home")


def test_a_finished_job_asks_for_no_cluster(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path)
    expected = at_home(corpus, tmp_path / "home")
    nowhere = RaySettings(address="127.0.0.1:1")
    assert on_ray(corpus, tmp_path / "home", settings=nowhere) == expected


def test_what_a_worker_says_reaches_the_user(tmp_path: Path, cluster: Any) -> None:
    with pytest.raises(InputError, match="no such model on this machine") as caught:
        on_ray(corpus_of(tmp_path), tmp_path / "ray", refuses)
    assert caught.value.hint == "copy it there"


def test_a_cluster_without_the_gpus_is_refused(tmp_path: Path, cluster: Any) -> None:
    with pytest.raises(InputError, match="an actor needs 1 GPU, the cluster has 0"):
        on_ray(corpus_of(tmp_path), tmp_path / "ray", settings=RaySettings(gpus_per_actor=1))


def test_a_machine_that_goes_away_costs_nothing(tmp_path: Path, cluster: Any) -> None:
    """Last of those that share the cluster: it has one worker fewer afterwards."""
    corpus = corpus_of(tmp_path)
    expected = at_home(corpus, tmp_path / "home")
    made: list[Manifest] = []
    job = threading.Thread(
        target=lambda: made.append(on_ray(corpus, tmp_path / "ray", WaitsForFile(tmp_path)))
    )
    job.start()
    while len(list(tmp_path.glob("at-*"))) < 2:
        assert job.is_alive()
        time.sleep(0.05)
    lost = cluster.list_all_nodes()[-1]
    assert (tmp_path / f"at-{lost.node_id}").exists()
    cluster.remove_node(lost, allow_graceful=False)
    (tmp_path / "go").touch()
    job.join()
    assert made == [expected]
    assert_same(tmp_path / "ray", tmp_path / "home")
    shards = sorted((tmp_path / "ray").glob("*.parquet"))
    found = [d.id for shard in shards for d in read_shard(shard).documents]
    assert found == [f"d{i}" for i in range(57) if i not in (5, 30)]
