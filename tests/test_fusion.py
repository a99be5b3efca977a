"""Fusion by hand-computed cases, and against the reference values of the official code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from steelyard.errors import InputError
from steelyard.plugin.engine import NO_CANDIDATES, Candidates, best_first
from steelyard.plugin.feedback import STRENGTH, TEMPERATURE, refine
from steelyard.plugin.fusion import Fusion, fuse
from steelyard.plugin.quantise import quantise
from steelyard.types import SparseVectors

DATA = Path(__file__).parent / "data"


def candidates(scores: dict[str, float]) -> Candidates:
    return best_first(list(scores), np.array(list(scores.values()), dtype=np.float64), len(scores))


def test_min_max_by_hand() -> None:
    dense = candidates({"a": 0.9, "b": 0.5, "c": 0.1})
    sparse = candidates({"b": 20.0, "d": 10.0})
    fused = fuse((dense, sparse), Fusion())
    expected = {"a": 0.7, "b": 0.7 * 0.5 + 0.3, "c": 0.0, "d": 0.0}
    assert fused.ids == ["a", "b", "c", "d"]
    np.testing.assert_allclose(fused.scores, sorted(expected.values(), reverse=True), atol=1e-7)


def test_rrf_by_hand() -> None:
    fused = fuse((candidates({"a": 3, "b": 2}), candidates({"b": 9})), Fusion("rrf"))
    assert fused.ids == ["b", "a"]
    np.testing.assert_allclose(fused.scores, [1 / 62 + 1 / 61, 1 / 61])


def test_ties_break_by_id_and_one_arm_may_be_silent() -> None:
    assert fuse((candidates({"z": 1, "y": 1, "x": 1}), NO_CANDIDATES), Fusion()).ids == [
        "x",
        "y",
        "z",
    ]
    assert fuse((NO_CANDIDATES, NO_CANDIDATES), Fusion()).ids == []
    assert fuse((candidates({"b": 1, "a": 1, "c": 2}),), Fusion(weights=(1.0,)), 2).ids == [
        "c",
        "a",
    ]


def test_the_cut_keeps_ties_in_order() -> None:
    many = best_first([f"d{i:03d}" for i in range(200)], np.repeat([1.0, 2.0], 100), 150)
    assert many.ids == [f"d{i:03d}" for i in [*range(100, 200), *range(50)]]


@pytest.mark.parametrize(
    ("name", "fusion"),
    [
        ("linear_0.7_0.3", Fusion()),
        ("linear_0.5_0.5", Fusion(weights=(0.5, 0.5))),
        ("rrf_k60", Fusion("rrf")),
    ],
)
def test_reference_values(name: str, fusion: Fusion) -> None:
    reference = json.loads((DATA / "fusion.json").read_text(encoding="utf-8"))
    for query, expected in reference[name].items():
        arms = [candidates(reference[arm].get(query, {})) for arm in ("dense", "sparse")]
        fused = fuse(arms, fusion)
        found = dict(zip(fused.ids, fused.scores.tolist(), strict=True))
        assert set(found) == set(expected)
        tied = fusion.method == "rrf" and any(
            len(set(arm.scores.tolist())) < len(arm.ids) for arm in arms
        )
        if tied:
            # The official RRF ranks ties in no stated order: only the sum is comparable.
            assert sum(found.values()) == pytest.approx(sum(expected.values()), abs=1e-6)
        else:
            assert found == pytest.approx(expected, abs=1e-6)


def test_an_unknown_method_lists_the_known() -> None:
    with pytest.raises(InputError, match="unknown fusion 'sum'"):
        Fusion("sum")


def test_quantisation_is_the_official_converters() -> None:
    reference = json.loads((DATA / "quantisation.json").read_text(encoding="utf-8"))
    values = np.maximum(np.array(reference["values"], dtype=np.float32), 0)
    ids = np.flatnonzero(values).astype(np.int32)
    vectors = SparseVectors(
        np.array([0, len(ids), len(ids)]), ids, values[ids], len(reference["values"])
    )
    impacts, clipped = quantise(vectors, 100.0)
    found = dict(zip(*(part.tolist() for part in impacts.row(0)), strict=True))
    assert found == {int(k): v for k, v in reference["rust_f32"][0].items()}
    assert clipped == 0
    assert len(impacts.row(1)[0]) == 0


def test_quantisation_clips_and_counts() -> None:
    vectors = SparseVectors(
        np.array([0, 3]),
        np.array([1, 2, 3], dtype=np.int32),
        np.array([5.12, 5.2, 900], dtype=np.float32),
        4,
    )
    impacts, clipped = quantise(vectors, 100.0)
    assert impacts.weights.tolist() == [512, 512, 512]
    assert clipped == 2


def test_feedback_by_hand() -> None:
    query = np.array([1, 0, 0], dtype=np.float32)
    best = np.array([[0, 1, 0], [0, 0, 1]], dtype=np.float32)
    weights = np.exp(np.array([1.0, 0.9]) / TEMPERATURE)
    weights /= weights.sum()
    centre = weights @ best
    moved = query + STRENGTH * centre / np.linalg.norm(centre)
    found = refine(query, best, np.array([1.0, 0.9]))
    np.testing.assert_allclose(found, moved / np.linalg.norm(moved), rtol=1e-6)
    np.testing.assert_array_equal(refine(query, best[:0], np.zeros(0)), query)
