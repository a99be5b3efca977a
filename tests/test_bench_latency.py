"""Search end to end, look-up against full model: what is reported belongs to what was searched."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from steelyard.encoders.documents.protocol import FullModel
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import InputError
from steelyard.eval.bench.encoder_memory import encoder_memory
from steelyard.eval.bench.full_model_queries import FullModelQueries, SharedModel
from steelyard.eval.bench.latency import Taken, bench_latency, milliseconds, percentile, ratios
from steelyard.plugin.searcher import Searcher
from steelyard.progress import SilentProgress
from steelyard.types import DenseVectors, Document, l2_normalise
from tests.conftest import DIMS, Small
from tests.memory_engine import MemoryEngine, encoded
from tests.test_cli import fails, ok

QUERIES = ["heavy document", "light query", "the balance", "a heavy balance", "arms"]


class _Tower:
    """A full model of its own mind: vectors that no look-up makes; it counts its batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.busy = threading.Event()

    def encode_query(self, texts: Sequence[str]) -> DenseVectors:
        self.batches.append(list(texts))
        self.busy.set()
        assert self.may_go_on.wait(30)
        if "broken" in texts:
            raise InputError("the model has no such word")
        seeds = [sum(text.encode()) for text in texts]
        rows = [np.random.default_rng(seed).normal(size=DIMS) for seed in seeds]
        return l2_normalise(np.array(rows, np.float32))

    @property
    def model(self) -> FullModel:
        return cast(FullModel, self)


@pytest.fixture
def index(tiny_encoder: QueryEncoder) -> MemoryEngine:
    words = ["heavy", "light", "arm", "balance", "document", "query"]
    texts = [f"{one} {other}" for one in words for other in words]
    engine = MemoryEngine()
    documents = [Document(str(row), text) for row, text in enumerate(texts)]
    engine.add(encoded(tiny_encoder, documents), tiny_encoder)
    return engine


def test_percentiles_are_nearest_ranks() -> None:
    values = [15.0, 20.0, 35.0, 40.0, 50.0]
    assert [percentile(values, share) for share in (5, 30, 40, 50, 95, 100)] == [
        15, 20, 20, 35, 50, 50,
    ]  # fmt: skip
    hundred = [float(v) for v in range(100, 0, -1)]
    assert [percentile(hundred, share) for share in (50, 95, 99)] == [50, 95, 99]
    assert milliseconds([0.001, 0.002, 0.006]) == {
        "p50": 2.0, "p95": 6.0, "p99": 6.0, "mean": 3.0,
    }  # fmt: skip
    with pytest.raises(InputError, match="no percentile of no values"):
        percentile([], 50)


def test_a_row_splits_the_time_and_ratios_compare_rows() -> None:
    light = Taken([0.010, 0.020], [0.001, 0.001], 0.04, 0.006, 20).row("light")
    heavy = Taken([0.030, 0.050], [0.021, 0.030], 0.08, 0.030, 20).row("heavy")
    assert light["search_ms"] == {"p50": 9.0, "p95": 19.0, "p99": 19.0, "mean": 14.0}
    assert (light["qps"], heavy["qps"], light["searches"]) == (50.0, 25.0, 2)
    assert (light["client_processor_ms"], heavy["client_processor_ms"]) == (3.0, 15.0)
    (found,) = ratios([{"clients": 3, "rows": [light, heavy]}], "light", "heavy")
    assert found == {
        "clients": 3, "light": "light", "heavy": "heavy", "p50_times": 3.0, "p95_times": 2.5,
        "p99_times": 2.5, "qps_times": 2.0, "client_processor_times": 5.0,
    }  # fmt: skip
    assert ratios([{"clients": 3, "rows": [light]}], "light", "heavy") == []


@pytest.mark.parametrize("clients", [1, 3])
def test_every_query_is_asked_of_every_contender(
    clients: int,
    tiny_pack: Path,
    tiny_encoder: QueryEncoder,
    index: MemoryEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tower = _Tower()
    full = FullModelQueries(tiny_pack, tower.model)
    contenders = {
        "lookup": Searcher(tiny_encoder, index, candidates=20),
        "full": Searcher(full, index, candidates=20),
    }
    asked: list[tuple[str, str]] = []
    for name, searcher in contenders.items():
        _note_searches(monkeypatch, name, searcher, asked)
    (result,) = bench_latency(
        contenders, QUERIES, ["warm"], SilentProgress(), clients=[clients], k=4
    )
    full.close()
    assert result["clients"] == clients
    assert [row["contender"] for row in result["rows"]] == ["lookup", "full"]
    for row in result["rows"]:
        assert (row["searches"], row["hits"]) == (5, 20)
        assert 0 < row["encode_ms"]["p50"] <= row["total_ms"]["p50"] <= row["total_ms"]["p99"]
    timed = [one for one in asked if one[1] != "warm"]
    assert sorted(timed) == sorted((name, text) for name in contenders for text in QUERIES)
    if clients == 1:  # turn by turn, and each begins in its turn
        assert timed[:4] == [("lookup", QUERIES[0]), ("full", QUERIES[0]),
                             ("full", QUERIES[1]), ("lookup", QUERIES[1])]  # fmt: skip
    assert sorted(t for batch in tower.batches for t in batch) == sorted([*QUERIES, "warm"])


def _note_searches(
    monkeypatch: pytest.MonkeyPatch, name: str, searcher: Searcher, asked: list[tuple[str, str]]
) -> None:
    real = searcher.search

    def search(text: str, *arguments: Any) -> Any:
        asked.append((name, text))
        return real(text, *arguments)

    monkeypatch.setattr(searcher, "search", search)


def test_the_full_models_hits_are_those_of_its_vectors(
    tiny_pack: Path, tiny_encoder: QueryEncoder, index: MemoryEngine
) -> None:
    tower = _Tower()
    full = FullModelQueries(tiny_pack, tower.model)
    with Searcher(full, index, candidates=30, arms=("dense",)) as dense:
        found = dense.search("heavy balance", 5)
        (expected,) = dense.index().dense.search(tower.encode_query(["heavy balance"]), 5)
        assert [hit.id for hit in found.hits] == expected.ids
        (light,) = dense.index().dense.search(tiny_encoder.encode_dense(["heavy balance"]), 5)
        assert light.ids != expected.ids
    with Searcher(full, index, candidates=30, fusion="rrf") as hybrid:
        both = [
            hybrid.index().dense.search(tower.encode_query(["heavy balance"]), 30)[0],
            hybrid.index().sparse.search(tiny_encoder.encode_sparse(["heavy balance"]), 30)[0],
        ]
        by_hand: dict[str, float] = {}
        for candidates in both:
            for place, identifier in enumerate(candidates.ids):
                by_hand[identifier] = by_hand.get(identifier, 0) + 1 / (61 + place)
        best = hybrid.search("heavy balance", 1).hits[0]
        top = max(by_hand.values())
        assert by_hand[best.id] == pytest.approx(top)
        assert hybrid.search(" ", 5).empty
    full.close()


def test_what_waits_for_the_model_is_its_next_batch() -> None:
    tower = _Tower()
    shared = SharedModel(tower.model)
    tower.may_go_on.clear()
    with ThreadPoolExecutor(4) as clients:
        first = clients.submit(shared.encode, ["heavy"])
        assert tower.busy.wait(30)
        others = [clients.submit(shared.encode, [text]) for text in ("light", "arm", "query")]
        while shared.waiting < 3:
            assert not any(other.done() for other in others)
        tower.may_go_on.set()
        alone = _Tower().encode_query(["heavy", "light", "arm", "query"])
        got = np.concatenate([each.result(30) for each in (first, *others)])
        np.testing.assert_array_equal(got, alone)
    assert tower.batches[0] == ["heavy"]
    assert sorted(tower.batches[1]) == ["arm", "light", "query"]
    assert len(tower.batches) == shared.batches == 2
    with pytest.raises(InputError, match="no such word"):
        shared.encode(["broken"])
    assert len(shared.encode(["heavy"])) == 1
    shared.close()


def test_a_process_of_its_own_tells_its_memory(tiny_pack: Path) -> None:
    held = encoder_memory(tiny_pack, "lookup", QUERIES)
    assert held["first_query_seconds"]
    resident, private = held["resident_mb"], held["private_mb"]
    assert (resident is None) == (private is None)
    assert resident is None or private is None or 10 < private < resident < 500


@pytest.mark.model
def test_the_command(small: Small, tmp_path: Path) -> None:
    url, report = f"milvus-lite://{tmp_path / 'latency.db'}?name=demo", tmp_path / "report.json"
    arguments = ["bench", "latency", small.corpus, "--pack", small.pack, "--to", url]
    ok(*arguments, "--passages", 300, "--queries", 12, "--clients", "1,2", "--json", report,
       "--precision", "float32", "--no-memory")  # fmt: skip
    told = json.loads(report.read_text(encoding="utf-8"))
    assert (told["format"], told["kind"], told["engine"]) == (1, "latency", "milvus-lite")
    assert (told["documents"], told["queries"], told["k"]) == (300, 12, 10)
    assert told["precision"] == "float32"
    assert told["torch_threads"] >= 1
    assert [result["clients"] for result in told["results"]] == [1, 2]
    for result in told["results"]:
        assert [row["contender"] for row in result["rows"]] == [
            "lookup hybrid", "full hybrid", "lookup dense", "full dense", "sparse",
        ]  # fmt: skip
        dense = [row for row in result["rows"] if row["contender"].endswith("dense")]
        assert all((row["searches"], row["hits"]) == (12, 120) for row in dense)
    assert [(one["clients"], one["light"]) for one in told["ratios"]] == [
        (1, "lookup hybrid"), (2, "lookup hybrid"), (1, "lookup dense"), (2, "lookup dense"),
    ]  # fmt: skip
    fails(2, "cannot read --clients 'many'", *arguments, "--clients", "many")
    fails(2, "--clients '0'", *arguments, "--clients", "0")
