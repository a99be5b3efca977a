"""Training steps by chunks and shared blocks against the plain way: the same losses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steelyard.errors import SteelyardError
from steelyard.eval.bench.training import WAYS, TrainingSetting, bench_training
from steelyard.progress import SilentProgress
from steelyard.training.data.triples import writing
from tests.test_ablations import examples
from tests.test_cli import ok
from tests.tiny_causal import write_model


def test_every_way_comes_to_the_same_losses(tmp_path: Path) -> None:
    model, report = write_model(tmp_path / "model"), tmp_path / "training.json"
    with writing(tmp_path / "pairs.jsonl") as writer:
        for example in examples(12):
            writer.write(example)
    output = ok(
        "bench", "training", "--data", tmp_path / "pairs.jsonl", "--model", model, "--batch", 6,
        "--document-tokens", 40, "--chunk", 2, "--rounds", 2, "--threads", 1,
        "--precision", "float32", "--json", report,
    )  # fmt: skip
    found = json.loads(report.read_text(encoding="utf-8"))
    ways = {way["name"]: way for way in found["ways"]}
    assert list(ways) == [way.name for way in WAYS]
    assert found["largest_difference"] < 1e-3
    plain = ways["plain"]
    # The adapter learns, so that the same losses are not those of a model that stands still.
    assert len(plain["losses"]) == 3
    assert plain["losses"][0] > plain["losses"][2] + 1e-3
    for way in ways.values():
        assert way["gradient_norms"] == pytest.approx(plain["gradient_norms"], rel=1e-2)
        assert way["seconds"] > 0
        assert way["base_bytes"] is None or way["peak_bytes"] >= way["base_bytes"] > 1e7
    assert plain["speed_up"] == 1
    assert (found["queries"], found["passages"]) == (6, 12)
    assert "losses differ by" in output


def test_a_contender_that_cannot_open_its_model(tmp_path: Path) -> None:
    setting = TrainingSetting(str(tmp_path / "nowhere"), "", ["a", "b"], ["c", "d"], 8, 8, 1)
    with pytest.raises(SteelyardError, match=r"trains 'plain' ended with 1; it said: .*nowhere"):
        bench_training(setting, SilentProgress(), rounds=1)
