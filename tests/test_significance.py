"""Tests and intervals against values by hand and against SciPy; rows that tell them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap, ttest_rel

from steelyard.errors import InputError
from steelyard.eval.collection import JudgedQueries, Query
from steelyard.eval.comparison import system_rows
from steelyard.eval.evaluate import SystemResult, measured_run
from steelyard.eval.runs import make_run
from steelyard.eval.significance import (
    Resampled,
    SignificanceSettings,
    compare,
    holm,
    paired_p_value,
    resampled_means,
)
from steelyard.eval.systems import System
from steelyard.plugin.engine import Candidates

SETTINGS = SignificanceSettings()


def test_the_paired_test() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.random(100), rng.random(100)
    assert paired_p_value(ours, theirs) == pytest.approx(ttest_rel(ours, theirs).pvalue)
    # By hand: differences 1, 2, 3 have mean 2 and deviation 1, t = 2 / (1 / sqrt 3), 2 degrees.
    # The t distribution of 2 degrees is 1 / 2 + t / (2 sqrt(2 + t^2)).
    t = 2 * np.sqrt(3)
    by_hand = 2 * (1 / 2 - t / (2 * np.sqrt(2 + t * t)))
    assert paired_p_value(np.array([1.0, 2, 3]), np.zeros(3)) == pytest.approx(by_hand)
    assert paired_p_value(ours, ours) == 1
    assert paired_p_value(ours + 0.1 + 0.01 * rng.random(100), ours) < 1e-6
    assert paired_p_value(ours[:1], ours[1:2]) == 1
    assert paired_p_value(np.ones(5), np.zeros(5)) == 1


def test_holm_by_hand() -> None:
    assert holm([]) == []
    assert holm([0.04]) == [0.04]
    # Sorted .01, .02, .03, .5: times 4, 3, 2, 1, never below the one before.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.9, 0.8, 0.7]) == [1, 1, 1]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.sampled_from([0.01, 0.05, 0.2]))
def test_holm_rejects_what_the_step_down_rule_rejects(p_values: list[float], alpha: float) -> None:
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    rejected = set()
    for rank, place in enumerate(order):
        if (len(p_values) - rank) * p_values[place] > alpha:
            break
        rejected.add(place)
    assert {i for i, p in enumerate(holm(p_values)) if p <= alpha} == rejected


def test_intervals_are_those_of_scipy() -> None:
    """Other random numbers, the same quantiles to the bootstrap's own error."""
    rng = np.random.default_rng(1)
    ours, theirs = rng.random(200), rng.random(200) ** 2
    resampled = Resampled({"ours": ours, "theirs": theirs}, SETTINGS)
    expected = bootstrap(
        (ours - theirs,), np.mean, method="percentile", n_resamples=20_000, rng=2
    ).confidence_interval
    assert resampled.difference("ours", "theirs") == pytest.approx(tuple(expected), abs=5e-3)
    share = bootstrap(
        (ours, theirs),
        lambda a, b, axis: a.mean(axis) / b.mean(axis),
        method="percentile",
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        rng=2,
    ).confidence_interval
    assert resampled.ratio("ours", "theirs") == pytest.approx(tuple(share), abs=2e-2)
    assert Resampled({"a": ours, "b": theirs}, SETTINGS).difference("a", "b") == (
        resampled.difference("ours", "theirs")
    )


def test_resamples_draw_queries_with_replacement() -> None:
    """Of two queries, half of the resamples hold both and a quarter each one twice."""
    means = resampled_means(np.array([[0.0, 1.0], [1.0, 1.0]]), SETTINGS)
    assert means.shape == (10_000, 2)
    values, counts = np.unique(means[:, 0], return_counts=True)
    assert values.tolist() == [0, 0.5, 1]
    assert counts / 10_000 == pytest.approx(np.array([0.25, 0.5, 0.25]), abs=0.02)
    assert (means[:, 1] == 1).all()
    assert (resampled_means(np.ones((1, 1)), SETTINGS) == 1).all()


def test_many_queries_are_resampled_in_blocks() -> None:
    values = np.random.default_rng(3).random((500_000, 1))
    few = SignificanceSettings(resamples=20)
    means = resampled_means(values, few)
    assert means.mean() == pytest.approx(0.5, abs=2e-3)
    assert len(np.unique(means)) == 20


def test_a_share_of_nothing_has_no_interval() -> None:
    resampled = Resampled({"a": np.ones(3), "zero": np.zeros(3)}, SETTINGS)
    assert resampled.ratio("a", "zero") is None
    assert resampled.ratio("zero", "a") == (0, 0)


def test_comparisons() -> None:
    base = np.array([0.5, 0.5, 0.0, 1.0])
    found = compare(
        {"base": base, "same": base, "better": base + np.array([0.1, 0, 0.3, -1e-12])},
        "base",
        SETTINGS,
    )
    assert list(found) == ["same", "better"]
    same, better = found["same"], found["better"]
    assert (same.difference, same.low, same.high, same.p_value, same.p_holm) == (0, 0, 0, 1, 1)
    assert (same.wins, same.ties, same.losses) == (0, 4, 0)
    assert better.difference == pytest.approx(0.1)
    assert (better.wins, better.ties, better.losses) == (2, 2, 0)
    assert better.low == pytest.approx(0, abs=0.01)
    assert 0.2 <= better.high <= 0.3
    assert better.p_holm == pytest.approx(min(1, 2 * better.p_value))


def test_settings_that_are_none() -> None:
    with pytest.raises(InputError, match="0 resamples"):
        SignificanceSettings(resamples=0)
    with pytest.raises(InputError, match="confidence 1"):
        SignificanceSettings(confidence=1)


def test_rows_tell_retention_and_the_test() -> None:
    queries = [Query(f"q{i}", "") for i in range(4)]
    judged = JudgedQueries("c", queries, {query.id: {"d": 1} for query in queries})

    def result(name: str, ranks: list[int]) -> SystemResult:
        rankings = [
            Candidates([f"x{i}" for i in range(rank)] + ["d"], -np.arange(rank + 1.0))
            for rank in ranks
        ]
        return measured_run(System(name, None, None), make_run(name, queries, rankings), judged)

    measured = [result("full", [0, 0, 0, 0]), result("lookup", [0, 0, 0, 1])]
    rows = system_rows(measured, {}, "full", {"lookup": "full", "full": None}, SETTINGS)
    full, lookup = rows
    second = 1 / np.log2(3)
    assert (full.against_baseline, full.retention, full.retention_of) == (None, None, None)
    assert lookup.retention == pytest.approx((3 + second) / 4)
    assert lookup.retention_of == "full"
    assert lookup.retention_low == pytest.approx((1 + 3 * second) / 4, abs=0.1)
    assert lookup.retention_high == 1
    assert lookup.against_baseline is not None
    assert lookup.against_baseline.losses == 1
    without = system_rows(measured[1:], {}, "full", {"lookup": "full"}, SETTINGS)
    assert (without[0].against_baseline, without[0].retention) == (None, None)
