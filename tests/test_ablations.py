"""The recipe and what is left without a part of it: trained alike, measured, and gone on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from steelyard.encoders.causal.tower import CausalEncoder
from steelyard.errors import InputError
from steelyard.eval.ablations.results import AblationRun, SystemFigures, read_finished
from steelyard.eval.ablations.study import settings_of
from steelyard.eval.ablations.summary import difference, tables
from steelyard.eval.ablations.variants import VARIANTS, parse_variants
from steelyard.eval.tower_quality import SYSTEMS
from steelyard.progress import SilentProgress
from steelyard.training.batches import Batches
from steelyard.training.data.triples import Passage, TrainingExample, writing
from steelyard.training.lora import add_adapter, trained_parameters
from steelyard.training.losses import LossSettings
from steelyard.training.settings import (
    AdapterSettings,
    BatchSettings,
    OptimiserSettings,
    TrainingSettings,
)
from steelyard.training.short_run import train_in_memory
from steelyard.training.trainer import TrainingJob, towers_of, train_light_retriever
from tests.conftest import scifact_lines
from tests.test_cli import fails, ok
from tests.test_tower_quality import write_collection
from tests.tiny_causal import write_model

PROMPT = "Instruct: find it\nQuery: "


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(tmp_path_factory.mktemp("model") / "llama"))


def examples(count: int = 16) -> list[TrainingExample]:
    lines = scifact_lines(count)
    return [TrainingExample(x["title"], Passage(x["text"], id=x["_id"])) for x in lines]


def recipe(steps: int) -> TrainingSettings:
    return TrainingSettings(
        prompt=PROMPT,
        adapter=AdapterSettings(rank=2),
        batch=BatchSettings(8, 1, 24, 24),
        optimiser=OptimiserSettings(steps, learning_rate=5e-3, warmup=1),
        loss=LossSettings(kl_dense=1.0, kl_sparse=1.0),
        ramp=1,
        precision="float32",
        seed=3,
    )


def test_a_short_run_is_the_trainers(model: str, tmp_path: Path) -> None:
    """Step by step the same losses, and in the end the same adapter."""
    settings = recipe(3)
    job = TrainingJob(model, tmp_path, settings, device="cpu", adapter_precision="float32")
    train_light_retriever(job, examples(), "0", SilentProgress())
    written = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    encoder = CausalEncoder(model, device="cpu")
    add_adapter(encoder.model.backbone, settings.adapter, settings.seed)
    run = train_in_memory(
        towers_of(encoder, settings),
        encoder.tokens,
        Batches(examples(), 8, 1, settings.seed),
        settings,
    )
    assert run.losses == pytest.approx([line["loss"] for line in log], rel=1e-4)
    assert run.gradient_norms == pytest.approx([x["gradient_norm"] for x in log], rel=1e-3)
    assert run.terms == pytest.approx(log[-1]["terms"], rel=1e-3)
    found = trained_parameters(encoder.model.backbone)
    assert run.parameters == sum(value.numel() for value in written.values())
    for name, value in written.items():
        ours = found[name.removeprefix("base_model.model.").replace(".weight", ".default.weight")]
        torch.testing.assert_close(ours.detach(), value, rtol=0, atol=1e-4)
    assert any(value.abs().max() > 1e-3 for name, value in written.items() if "lora_B" in name)


def test_a_variant_changes_one_thing() -> None:
    whole = recipe(3)
    changed = {name: settings_of(one, whole, 3, 576) for name, one in VARIANTS.items()}
    for name in ("full", "untrained", "document-bag", "embedding-layer", "one-layer"):
        assert changed[name] == whole
    assert len({VARIANTS[name].kind for name in ("full", "document-bag", "one-layer")}) == 3
    assert (changed["no-kl"].loss.kl_dense, changed["no-kl"].loss.kl_sparse) == (0, 0)
    assert changed["no-kl"].loss.flops == whole.loss.flops > 0
    assert changed["no-flops"].loss.flops == 0 < changed["no-flops"].loss.kl_sparse
    assert changed["mrl"].loss.mrl_dims == (64, 128, 256, 576)
    assert settings_of(VARIANTS["full"], whole, 9, 32).seed == 9


def test_variants_by_name() -> None:
    assert [one.name for one in parse_variants("no-kl, untrained")] == [
        "untrained",
        "full",
        "no-kl",
    ]
    for wrong in ("", "no-kl,nothing"):
        with pytest.raises(InputError, match="variant"):
            parse_variants(wrong)


def run(variant: str, seed: int, values: list[float], system: str = "lookup") -> AblationRun:
    """Each system has 0 for every query, and one of them these."""
    nothing = SystemFigures(0.0, 0.0, [0.0] * len(values))
    systems = dict.fromkeys(SYSTEMS, nothing)
    systems[system] = SystemFigures(float(np.mean(values)), 0.5, values)
    return AblationRun(variant, seed, 1, 1.0, 10, [1.0], 700.0, 2.5, systems, [])


def test_differences_are_paired_by_seed_and_query() -> None:
    """Every query loses 0.2, whatever the seed and however they differ among themselves."""
    runs = [
        run("full", 0, [0.9, 0.3, 0.5]),
        run("full", 1, [1.0, 0.4, 0.2]),
        run("document-bag", 0, [0.7, 0.1, 0.3]),
        run("document-bag", 1, [0.8, 0.2, 0.0]),
    ]
    found = difference(runs, "document-bag", "lookup")
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx((-0.2, -0.2, -0.2))
    assert difference(runs[:3], "document-bag", "lookup") is not None
    assert difference([runs[0], runs[3]], "document-bag", "lookup") is None
    (table,) = tables(runs)
    row = next(cells for cells in table.rows if cells[0] == "lookup")
    assert row == ["lookup", "0.5500", "0.3500", "-0.2000", "-.200 to -.200"]
    assert table.trend == (
        "Published, lookup: 34.9 for 48.7 (-28%). Here: 35.0 for 55.0 (-36%): the same way."
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [([0.7, 0.6, 0.7], "the other way"), ([0.1, 0.9, 0.5], "not told apart")],
)
def test_a_trend_that_is_not_the_papers(values: list[float], said: str) -> None:
    runs = [run("full", 0, [0.5, 0.5, 0.5]), run("embedding-layer", 0, values)]
    assert tables(runs)[0].trend.endswith(f"{said}.")


def test_the_untrained_model_is_measured_once() -> None:
    runs = [run("untrained", 0, [0.1, 0.1])]
    runs += [run("full", seed, [0.4, 0.2 + seed]) for seed in (0, 1)]
    found = difference(runs, "untrained", "lookup")
    assert found is not None
    assert found.mean == pytest.approx(0.1 - 0.55)
    assert tables(runs)[0].trend == ""
    assert tables(runs[:1]) == []


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_collection(tmp_path_factory.mktemp("ablations") / "judged", 24, 16)
    with writing(folder / "pairs.jsonl") as writer:
        for example in examples(16):
            writer.write(example)
    return folder


def study(collection: Path, model: str, report: Path, *more: object) -> list[str]:
    fixed = ["--data", collection / "pairs.jsonl", "--model", model, "--steps", 3, "--batch", 4]
    fixed += ["--document-tokens", 24, "--precision", "float32", "--json", report]
    return [str(part) for part in ("bench", "ablations", collection, *fixed, *more)]


def test_a_study_and_going_on_with_it(collection: Path, model: str, tmp_path: Path) -> None:
    report, page = tmp_path / "study.json", tmp_path / "study.md"
    ok(*study(collection, model, report, "--variants", "untrained,one-layer"))
    first: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    assert [one["variant"] for one in first["runs"]] == ["untrained", "full", "one-layer"]
    names = ",".join(VARIANTS)
    output = ok(*study(collection, model, report, "--variants", names, "--markdown", page))
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["runs"][:3] == first["runs"]
    runs = {one["variant"]: one for one in found["runs"]}
    assert set(runs) == set(VARIANTS)
    assert runs["untrained"]["steps"] == 0 < runs["full"]["steps"] == 3
    assert all(set(one["systems"]) == set(SYSTEMS) for one in runs.values())
    # Each is another model: what its training changed shows in the first loss or in the last.
    losses = [tuple(one["losses"]) for name, one in runs.items() if name != "mrl"]
    assert len(set(losses)) == len(losses)
    # The map of the embedding layer learns with the adapter.
    more = runs["embedding-layer"]["parameters"] - runs["full"]["parameters"]
    assert more == 32 * 32
    sized = {name for name, one in runs.items() if one["sizes"]}
    assert sized == {"full", "mrl"}
    largest = runs["full"]["sizes"][-1]
    assert (largest["dims"], largest["max_terms"]) == (32, 256)
    whole = runs["full"]["systems"]["lookup+lm-head"]
    assert largest["fused"]["ndcg10"] == pytest.approx(whole["ndcg10"])
    assert "Published, lookup: 34.9 for 48.7 (-28%)" in output
    assert page.read_text(encoding="utf-8").count("| nDCG@10 | recipe |") == 7


def test_one_layer_needs_the_first_layers_adapter(
    collection: Path, model: str, tmp_path: Path
) -> None:
    report = tmp_path / "study.json"
    command = study(collection, model, report, "--variants", "one-layer", "--first-layer", 1)
    fails(2, "the adapter starts at layer 1: nothing of it would learn", *command)
    assert not report.exists()


def test_another_study_in_the_same_file(collection: Path, model: str, tmp_path: Path) -> None:
    report = tmp_path / "study.json"
    ok(*study(collection, model, report, "--variants", "full"))
    there = json.loads(report.read_text(encoding="utf-8"))["study"]
    with pytest.raises(InputError, match="holds another study: its training differ"):
        read_finished(report, {**there, "training": {}})
    report.write_text('{"kind": "distillation"}', encoding="utf-8")
    with pytest.raises(InputError, match="no result of 'steelyard bench ablations'"):
        read_finished(report, {})
