"""The training run: it learns, goes on where it stopped, and is served as it was trained."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from steelyard.encoders.causal.tower import CausalEncoder
from steelyard.errors import InputError, SteelyardError
from steelyard.progress import SilentProgress
from steelyard.training.batches import examples_sha256
from steelyard.training.data.triples import Passage, TrainingExample, writing
from steelyard.training.log import read_log
from steelyard.training.lora import add_adapter
from steelyard.training.losses import LossSettings
from steelyard.training.settings import (
    AdapterSettings,
    BatchSettings,
    OptimiserSettings,
    TrainingSettings,
)
from steelyard.training.trainer import TrainingJob, TrainingReport, train_light_retriever
from tests.conftest import scifact_lines
from tests.tiny_causal import write_model

PROMPT = "Instruct: find it\nQuery: "
BIN = Path(sys.executable).parent / "steelyard"
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """For so small a model more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(tmp_path_factory.mktemp("causal") / "model"))


def examples(count: int = 16) -> list[TrainingExample]:
    """Titles and the texts under them, each with the next as its negative."""
    lines = scifact_lines(count)
    texts = [Passage(line["text"], id=line["_id"]) for line in lines]
    return [
        TrainingExample(line["title"], texts[i], (texts[(i + 1) % count],), kind="title")
        for i, line in enumerate(lines)
    ]


def settings(steps: int = 6, **changes: Any) -> TrainingSettings:
    made = TrainingSettings(
        prompt=PROMPT,
        adapter=AdapterSettings(rank=4, alpha=8, dropout=0.1),
        batch=BatchSettings(queries=4, negatives=1, document_tokens=24, query_tokens=12),
        optimiser=OptimiserSettings(steps=steps, learning_rate=1e-2, warmup=0),
        loss=LossSettings(kl_dense=1, kl_sparse=1, mrl_dims=(8, 32)),
        ramp=10,
    )
    return replace(made, **changes)


def train(model: str, out: Path, given: TrainingSettings, **changes: Any) -> TrainingReport:
    job = TrainingJob(model, out, given, device="cpu", save_every=2)
    data = examples()
    return train_light_retriever(
        replace(job, **changes), data, examples_sha256(data), SilentProgress()
    )


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(str(out / "adapter" / WEIGHTS))


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_64_pairs_are_memorised(model: str, tmp_path: Path) -> None:
    """Recall@1 of every arm above .95, every term of the loss lower than at first."""
    data = [replace(example, negatives=()) for example in examples(64)]
    given = settings(
        160,
        adapter=AdapterSettings(rank=16, alpha=32, dropout=0),
        batch=BatchSettings(queries=64, negatives=0, document_tokens=24, query_tokens=16),
        optimiser=OptimiserSettings(160, 1e-2, 5),
        loss=LossSettings(flops=3e-3, kl_dense=1, kl_sparse=1),
        ramp=0,
    )
    job = TrainingJob(model, tmp_path / "run", given, device="cpu", save_every=1000)
    report = train_light_retriever(job, data, examples_sha256(data), SilentProgress())
    assert report.done
    assert all(recall < 0.2 for recall in report.first["recall"].values())
    assert all(recall > 0.95 for recall in report.last["recall"].values()), report.last
    assert len(report.first["terms"]) == 6
    for name, value in report.last["terms"].items():
        assert value < 0.6 * report.first["terms"][name], name


def test_the_adapter_is_served_as_it_was_trained(model: str, tmp_path: Path) -> None:
    report = train(model, tmp_path / "run", settings(), adapter_precision="float32")
    assert (report.steps, report.done, report.examples) == (6, True, {"title": 16})
    assert report.parameters == sum(value.numel() for value in weights(tmp_path / "run").values())
    texts = [example.positive.text for example in examples(3)]
    options: dict[str, Any] = {"max_length": 24, "device": "cpu", "query_prompt": PROMPT}
    served = CausalEncoder(model, adapter=str(report.adapter), **options)
    trained = CausalEncoder(model, **options)
    adapted = add_adapter(trained.model.backbone, report.settings.adapter)
    from peft import set_peft_model_state_dict

    set_peft_model_state_dict(adapted.eval(), weights(tmp_path / "run"))
    found, expected = served.encode_document(texts), trained.encode_document(texts)
    assert found.dense is not None
    assert expected.dense is not None
    np.testing.assert_allclose(found.dense, expected.dense, atol=1e-5)
    plain = CausalEncoder(model, **options).encode_document(texts)
    assert plain.dense is not None
    assert np.abs(plain.dense - found.dense).max() > 0.05
    config = json.loads((report.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == model
    assert config["r"] == 4


def test_a_stopped_run_ends_as_one_that_was_not(model: str, tmp_path: Path) -> None:
    """Also with dropout, by the bytes; and the log has each step once."""
    given = settings()
    train(model, tmp_path / "straight", given)
    reports = [train(model, tmp_path / "stopped", given, minutes=0) for _ in range(3)]
    assert [report.steps for report in reports] == [1, 2, 3]
    assert not reports[-1].done
    assert train(model, tmp_path / "stopped", given).done
    straight, stopped = (tmp_path / name / "adapter" / WEIGHTS for name in ("straight", "stopped"))
    assert straight.read_bytes() == stopped.read_bytes()
    assert [line["step"] for line in read_log(tmp_path / "stopped")] == list(range(6))
    before = stopped.stat().st_mtime_ns
    again = train(model, tmp_path / "stopped", given)
    assert (again.steps, again.done, stopped.stat().st_mtime_ns) == (6, True, before)
    assert len(list((tmp_path / "stopped" / "checkpoints").iterdir())) == 2


def test_chunks_do_not_change_what_is_learnt(model: str, tmp_path: Path) -> None:
    plain = settings(3, adapter=AdapterSettings(rank=4, alpha=8, dropout=0))
    ways: dict[str, dict[str, Any]] = {
        "whole": {"share_blocks": False},
        "chunks": {"chunk": 3},
        "checkpointing": {"checkpointing": True},
    }
    for name, changes in ways.items():
        given = replace(plain, batch=replace(plain.batch, **changes))
        train(model, tmp_path / name, given, adapter_precision="float32")
    whole = weights(tmp_path / "whole")
    assert apart(whole, weights(tmp_path / "chunks")) < 1e-4
    assert apart(whole, weights(tmp_path / "checkpointing")) < 1e-4


def test_two_processes_learn_as_one(model: str, tmp_path: Path) -> None:
    """Started as ``accelerate launch`` starts them, with half of the gradients' mean each."""
    command = _command(model, tmp_path, "two", "--dropout", "0", "--steps", "3")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    environment["ACCELERATE_USE_CPU"] = "true"
    ranks = [
        subprocess.Popen(
            command,
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    for process in ranks:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
    alone = _command(model, tmp_path, "one", "--dropout", "0", "--steps", "3")
    subprocess.run(alone, check=True, capture_output=True)
    report = json.loads((tmp_path / "two" / "training.json").read_text(encoding="utf-8"))
    assert report["processes"] == 2
    one, two = (read_log(tmp_path / name) for name in ("one", "two"))
    # The regulariser is each process's own; it is 0 in the first two steps.
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], abs=1e-4)
    assert two[1]["loss"] == pytest.approx(one[1]["loss"], abs=2e-2)


def test_a_signal_stops_the_command_and_the_same_goes_on(model: str, tmp_path: Path) -> None:
    command = _command(model, tmp_path, "run", "--steps", "400", "--save-every", "1000")
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    log = tmp_path / "run" / "log.jsonl"
    end = time.monotonic() + 200
    while not (log.is_file() and log.read_text(encoding="utf-8").count("\n") > 3):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "the same command goes on" in said
    done = len(read_log(tmp_path / "run"))
    assert 3 < done < 400
    going_on = subprocess.run(
        [*command, "--minutes", "0", "--json", str(tmp_path / "report.json")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"going on after step {done}" in going_on.stderr
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["steps"] == done + 1


def test_a_folder_holds_one_run(model: str, tmp_path: Path) -> None:
    train(model, tmp_path / "run", settings(2))
    with pytest.raises(InputError, match="other settings, another model, data or first adapter"):
        train(model, tmp_path / "run", settings(2, seed=1))
    command = _command(model, tmp_path, "run", "--steps", "2")
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2
    subprocess.run([*command, "--overwrite"], capture_output=True, check=True)


def test_a_run_begins_with_an_adapter(model: str, tmp_path: Path) -> None:
    """What was learnt is what is learnt on; another shape, or no adapter, is refused."""
    first = train(model, tmp_path / "first", settings(6))
    still = settings(1, optimiser=OptimiserSettings(1, 1e-12, 0))
    begun = str(first.adapter)
    report = train(model, tmp_path / "second", still, init_adapter=begun)
    assert apart(weights(tmp_path / "second"), weights(tmp_path / "first")) == 0
    scratch = train(model, tmp_path / "third", still)
    assert report.first["loss"] < scratch.first["loss"]
    assert (report.init_adapter is None, scratch.init_adapter) == (False, None)
    for changed, told in (
        (AdapterSettings(rank=8, alpha=8), "alpha 8 and rank 4, the run 8 and 8"),
        (AdapterSettings(rank=4, alpha=8, first_layer=1), "first_layer|--first-layer"),
    ):
        given = replace(still, adapter=changed)
        with pytest.raises(InputError, match=told):
            train(model, tmp_path / "other", given, init_adapter=begun)
    # A run that began otherwise does not go on; none writes over what it begins with.
    with pytest.raises(InputError, match="first adapter"):
        train(model, tmp_path / "second", still)
    with pytest.raises(InputError, match="lies in the run's own folder"):
        train(model, tmp_path / "first", still, init_adapter=begun, overwrite=True)
    # Written for the whole model it is the same; scaled otherwise it is not.
    whole = tmp_path / "whole"
    shutil.copytree(first.adapter, whole)
    renamed = {
        name.replace("base_model.model.", "base_model.model.model.", 1): value
        for name, value in weights(tmp_path / "first").items()
    }
    save_file(renamed, str(whole / WEIGHTS))
    train(model, tmp_path / "fifth", still, init_adapter=str(whole))
    assert apart(weights(tmp_path / "fifth"), weights(tmp_path / "first")) == 0
    config = whole / "adapter_config.json"
    config.write_text(
        json.dumps({**json.loads(config.read_text()), "use_rslora": True}), encoding="utf-8"
    )
    with pytest.raises(InputError, match="scaled by use_rslora"):
        train(model, tmp_path / "sixth", still, init_adapter=str(whole))
    damaged = first.adapter / WEIGHTS
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(InputError, match=f"cannot read .*{WEIGHTS}"):
        train(model, tmp_path / "fourth", still, init_adapter=begun)


def test_half_precision_learns_in_float32(model: str, tmp_path: Path) -> None:
    full, half = (
        train(
            model,
            tmp_path / precision,
            settings(4, precision=precision),
            adapter_precision="float32",
        )
        for precision in ("float32", "bfloat16")
    )
    assert half.last["loss"] == pytest.approx(full.last["loss"], rel=0.1)
    values = weights(tmp_path / "bfloat16")
    # Not on bfloat16's grid: the updates were not rounded to it.
    assert any(bool((v != v.bfloat16().float()).any()) for v in values.values())


def test_layers_below_the_first_are_left_alone(model: str, tmp_path: Path) -> None:
    train(model, tmp_path / "run", settings(2, adapter=AdapterSettings(first_layer=1)))
    assert {name.split("layers.")[1][0] for name in weights(tmp_path / "run")} == {"1"}
    given = settings(2, adapter=AdapterSettings(first_layer=2))
    with pytest.raises(InputError, match="starts at layer 2, the model has linear layers in 2"):
        train(model, tmp_path / "none", given)


def test_a_loss_that_is_no_number_stops_the_run(model: str, tmp_path: Path) -> None:
    wild = settings(60, optimiser=OptimiserSettings(60, 1e30, 0, gradient_norm=None))
    with pytest.raises(SteelyardError, match=r"the loss of step \d+ is (nan|inf)"):
        train(model, tmp_path / "run", wild)


def test_damaged_checkpoints_are_named(model: str, tmp_path: Path) -> None:
    given = settings(4)
    train(model, tmp_path / "run", given, minutes=0)
    (place,) = (tmp_path / "run" / "checkpoints").iterdir()
    tensors = place / "state.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:100])
    with pytest.raises(InputError, match=r"cannot read the checkpoint .*step-000001"):
        train(model, tmp_path / "run", given)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["--batch", "1"], "--batch"),
        (["--dropout", "1"], "dropout 1.0"),
        (["--warmup", "9", "--steps", "3"], "a warm-up of 9 steps in a run of 3"),
        (["--mrl-dims", "32,8"], "rising lengths"),
        (["--mrl-dims", "8,64"], "MRL dims 64, the vectors have 32"),
        (["--kl-dense", "1", "--no-full-queries"], "the full model read no query"),
        (["--repeat", "span=2"], "no example is of the kind 'span'"),
        (["--repeat", "span"], "KIND=N"),
        (["--batch", "64"], "16 different positives, a batch has 64 queries"),
    ],
)
def test_what_cannot_be_is_said(model: str, tmp_path: Path, change: list[str], told: str) -> None:
    done = subprocess.run(
        [*_command(model, tmp_path, "run"), *change], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert told in " ".join(done.stderr.split()).replace("│ ", "")
    assert "Traceback" not in done.stderr


def _command(model: str, folder: Path, out: str, *more: str) -> list[str]:
    data = folder / "examples.jsonl"
    if not data.exists():
        with writing(data) as writer:
            for example in examples():
                writer.write(example)
    return [
        str(BIN), "train", "lightretriever", str(data),
        "--model", model, "--out", str(folder / out), "--device", "cpu",
        "--batch", "4", "--negatives", "1", "--document-tokens", "24", "--query-tokens", "12",
        "--learning-rate", "0.01", "--warmup", "0", "--rank", "4", "--alpha", "8", *more,
    ]  # fmt: skip


def _free_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
