"""Loss terms, their gradients and schedules: equal to what the official code gave."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steelyard.errors import InputError
from steelyard.training.losses import (
    Loss,
    LossSettings,
    Representations,
    contrastive,
    divergence,
    light_retriever_loss,
)
from steelyard.training.mrl import cut
from steelyard.training.schedules import (
    learning_rate_factor,
    regulariser_strength,
    trainer_strength,
)

DATA = Path(__file__).parent / "data"
REFERENCE = DATA / "lightretriever_qwen2"
CASES: dict[str, Any] = json.loads((REFERENCE / "losses.json").read_text(encoding="utf-8"))
ARRAYS = dict(np.load(REFERENCE / "losses.npz"))
SCHEDULES: dict[str, Any] = json.loads((DATA / "schedules.json").read_text(encoding="utf-8"))
NAMES = {
    "mrl_loss/den_clloss": "dense",
    "mrl_loss/imbden_clloss": "light_dense",
    "imbspr_clloss": "light_sparse",
    "p_flops_loss": "flops",
    "mrl_loss/emb_den_scores_klloss": "kl_dense",
    "mrl_loss/emb_den_reps_klloss": "kl_vectors",
    "tok_den_scores_klloss": "kl_sparse",
    "mrl_loss/den_klloss": "teacher_dense",
    "mrl_loss/imbden_klloss": "teacher_light_dense",
    "imbspr_klloss": "teacher_light_sparse",
}
"""The official names of the terms, and ours."""

SETTINGS = {
    "example_script": LossSettings(),
    "light_only": LossSettings(),
    "only_hard_negatives_for_queries_1_and_3": LossSettings(),
    "kl_light_to_dense_scores": LossSettings(kl_dense=1, kl_sparse=1),
    "kl_with_coefficients": LossSettings(kl_dense=0.5, kl_sparse=0.25, kl_vectors=0.5),
    "cross_encoder_distillation": LossSettings(teacher=0.7, teacher_temperature=2),
    "mrl_16_32_64_with_kl": LossSettings(kl_dense=1, kl_sparse=1, mrl_dims=(16, 32, 64)),
    "flops_at_full_strength": LossSettings(),
}
FIELDS = {
    "full": "q_dense_reps",
    "light": "q_emb_reps",
    "counts": "q_token_id_reps",
    "document_dense": "p_dense_reps",
    "document_sparse": "p_sparse_reps",
}


def _inputs(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    return {
        name: torch.tensor(ARRAYS[key], dtype=dtype, requires_grad=True)
        for name, key in FIELDS.items()
    }


def _loss(case: str, inputs: dict[str, torch.Tensor]) -> Loss:
    given = {k: v for k, v in inputs.items() if k != "full" or case != "light_only"}
    scores = torch.tensor(ARRAYS["ce_scores"]).view(4, 3)
    only_hard = torch.tensor(ARRAYS["only_hn"])
    return light_retriever_loss(
        Representations(**given),
        SETTINGS[case],
        regulariser_strength=CASES[case]["reg_scaling_factor"],
        only_hard=only_hard if case.startswith("only_hard") else None,
        teacher_scores=scores if case.startswith("cross_encoder") else None,
    )


def _ours(official: str) -> str:
    name, _, dims = official.partition("-dim")
    return NAMES[name] if dims in ("", "None") else f"{NAMES[name]}@{dims}"


@pytest.mark.parametrize("case", SETTINGS)
def test_every_term_is_the_official_one(case: str) -> None:
    made, expected = _loss(case, _inputs()), CASES[case]
    wanted = {_ours(name): value for name, value in expected["terms"].items()}
    assert made.terms.keys() == wanted.keys()
    for name, value in wanted.items():
        assert float(made.terms[name].detach()) == pytest.approx(value, rel=0, abs=1e-4), name
    assert float(made.total.detach()) == pytest.approx(expected["loss"], rel=0, abs=1e-4)


@pytest.mark.parametrize(
    "case", ["example_script", "kl_with_coefficients", "mrl_16_32_64_with_kl"]
)
def test_every_gradient_is_the_official_one(case: str) -> None:
    inputs = _inputs()
    _loss(case, inputs).total.backward()  # type: ignore[no-untyped-call]
    for name, key in FIELDS.items():
        gradient = inputs[name].grad
        assert gradient is not None
        expected = ARRAYS[f"grad/{case}/{key}"]
        np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_autocast_does_not_coarsen_the_loss() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = _loss("example_script", _inputs())
    assert float(made.total.detach()) == pytest.approx(CASES["example_script"]["loss"], abs=1e-4)


def test_two_processes_are_one_batch(tmp_path: Path) -> None:
    """Terms and gradients of both ranks, by two real processes; then the averaging of both."""
    script = Path(__file__).parent / "two_ranks.py"
    environment = {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(tmp_path)],
            env=environment,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    for process in ranks:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said.decode()
    expected = json.loads((REFERENCE / "losses_two_ranks.json").read_text(encoding="utf-8"))
    arrays = np.load(REFERENCE / "losses_two_ranks.npz")
    settings = expected["train_args_changed"]
    assert settings["emb_den_scores_distillation"]
    assert settings["tok_den_scores_distillation"]
    for rank, wanted in enumerate(expected["ranks"]):
        terms = json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8"))
        total = wanted.pop("loss")
        assert terms.pop("total") == pytest.approx(total, rel=0, abs=1e-4)
        assert terms == pytest.approx({_ours(n): v for n, v in wanted.items()}, rel=0, abs=1e-4)
        found = np.load(tmp_path / f"{rank}.npz")
        for name, key in FIELDS.items():
            reference = arrays[f"rank{rank}/grad_{key}"]
            np.testing.assert_allclose(found[name], reference, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(found["only_hard"], [False, True, False, True])
        np.testing.assert_array_equal(found["averaged"], [0.5, 1.5])
        np.testing.assert_array_equal(found["unused"], [1.0, 1.0])


def test_regulariser_schedule() -> None:
    steps = SCHEDULES["steps"]
    assert [regulariser_strength(t) for t in steps] == pytest.approx(
        SCHEDULES["regulariser_quadratic_T4000"], abs=1e-12
    )
    decayed = [regulariser_strength(t, decay_end=8000, floor=0.1) for t in steps]
    assert decayed == pytest.approx(
        SCHEDULES["regulariser_quadratic_linear_decay_T4000_max8000_min0_1"], abs=1e-12
    )
    assert regulariser_strength(0, 0) == 1


@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_learning_rate_schedule(shape: Any) -> None:
    found = [
        learning_rate_factor(t, warmup=100, total=12000, shape=shape) for t in SCHEDULES["steps"]
    ]
    expected = SCHEDULES[f"lr_factor_{shape}_warmup100_total12000_min0_1"]
    assert found == pytest.approx(expected, abs=1e-12)


def test_the_official_trainers_steps() -> None:
    run = SCHEDULES["trainer_trace"]
    for line in run["trace"]:
        assert trainer_strength(line["step"], run["reg_t"]) == pytest.approx(line["reg"])
        factor = learning_rate_factor(
            line["step"], warmup=run["warmup_steps"], total=run["max_steps"]
        )
        assert run["learning_rate"] * factor == pytest.approx(line["lr"])


def test_shorter_vectors_are_unit_again() -> None:
    vectors = torch.tensor([[3.0, 4.0, 12.0]]) / 13
    torch.testing.assert_close(cut(vectors, 2), torch.tensor([[0.6, 0.8]]))
    assert cut(vectors, None) is vectors
    with pytest.raises(InputError, match="MRL dims 4, the vectors have 3"):
        cut(vectors, 4)


def test_mrl_sums_what_each_length_gives_alone() -> None:
    """The contrastive terms of a run with several lengths are those of runs with one each."""
    inputs = _inputs()
    made = _loss("mrl_16_32_64_with_kl", inputs).terms
    for length in (16, 32, 64):
        scores = cut(inputs["light"], length) @ cut(inputs["document_dense"], length).T
        alone = contrastive(scores / 0.02, 3)
        assert float(made[f"light_dense@{length}"].detach()) == pytest.approx(
            float(alone.detach())
        )


def test_the_teacher_does_not_learn() -> None:
    student = torch.tensor([[1.0, 2.0]], requires_grad=True)
    teacher = torch.tensor([[2.0, 1.0]], requires_grad=True)
    divergence(student, teacher).backward()  # type: ignore[no-untyped-call]
    assert teacher.grad is None
    assert student.grad is not None


def test_bad_batches_and_settings() -> None:
    inputs = _inputs()
    with pytest.raises(InputError, match="11 passages for 4 queries"):
        _loss("example_script", {**inputs, "document_dense": inputs["document_dense"][:11]})
    without = {k: v for k, v in inputs.items() if k != "full"}
    with pytest.raises(InputError, match="kl_dense is 1, but the full model read no query"):
        _loss("kl_light_to_dense_scores", without)
    with pytest.raises(InputError, match=r"coefficient is 0\.5, but the batch has no scores"):
        light_retriever_loss(
            Representations(**inputs), LossSettings(teacher=0.5), regulariser_strength=1
        )
    with pytest.raises(InputError, match="dense_temperature 0"):
        LossSettings(dense_temperature=0)
    with pytest.raises(InputError, match=r"MRL dims \[32, 16\]"):
        LossSettings(mrl_dims=(32, 16))
    with pytest.raises(InputError, match="warm-up of 9 steps in a run of 8"):
        learning_rate_factor(0, warmup=9, total=8)
    with pytest.raises(InputError, match="decays until step 4000"):
        regulariser_strength(1, decay_end=4000)
