"""Paired tests over queries: t-test, bootstrap intervals, Holm's correction.

Everything is paired: two systems answer the same queries, and what is tested is the mean of the
differences. Bootstrap intervals are percentile intervals (Efron 1979; Sakai 2006 for retrieval)
over resampled queries; all systems of a collection share the same resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steelyard.errors import InputError
from steelyard.eval.results import Comparison

_TIE = 1e-9
"""Values of a measure that are no further apart are equal: below it is only rounding."""

_BLOCK = 1 << 22
"""Drawn query numbers held at a time: 32 MB of them."""


@dataclass(frozen=True, slots=True)
class SignificanceSettings:
    """How systems are told apart.

    Attributes:
        resamples: of the bootstrap.
        seed: of the resamples; the same seed gives the same intervals.
        confidence: of the intervals, between 0 and 1.
    """

    resamples: int = 10_000
    seed: int = 0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.resamples < 1 or not 0 < self.confidence < 1:
            raise InputError(
                f"{self.resamples} resamples at confidence {self.confidence}",
                "give at least 1 resample and a confidence between 0 and 1",
            )


class Resampled:
    """Means of several systems over the same resampled queries.

    Args:
        by_query: float64 ``[queries]`` by the system's name, all of one length, at least 1.
        settings: number of resamples, seed, confidence.
    """

    def __init__(
        self, by_query: Mapping[str, NDArray[np.float64]], settings: SignificanceSettings
    ) -> None:
        self._column = {name: column for column, name in enumerate(by_query)}
        self._means = resampled_means(np.stack(list(by_query.values()), axis=1), settings)
        outside = (1 - settings.confidence) / 2
        self._quantiles = (outside, 1 - outside)

    def difference(self, ours: str, theirs: str) -> tuple[float, float]:
        """Percentile interval of the mean of ours less theirs."""
        return self._interval(self._of(ours) - self._of(theirs))

    def ratio(self, ours: str, theirs: str) -> tuple[float, float] | None:
        """Percentile interval of ours as a share of theirs.

        Resamples in which theirs is 0 have no share and are left out; None if all are.
        """
        denominator = self._of(theirs)
        there = denominator > 0
        if not there.any():
            return None
        return self._interval(self._of(ours)[there] / denominator[there])

    def _of(self, name: str) -> NDArray[np.float64]:
        means: NDArray[np.float64] = self._means[:, self._column[name]]
        return means

    def _interval(self, values: NDArray[np.float64]) -> tuple[float, float]:
        low, high = np.quantile(values, self._quantiles)
        return float(low), float(high)


def resampled_means(
    values: NDArray[np.float64], settings: SignificanceSettings
) -> NDArray[np.float64]:
    """Means ``[resamples, m]`` of m systems over queries drawn with replacement.

    A resample is the number of times that each query was drawn, so that the means of all
    systems are one matrix product.

    Args:
        values: ``[queries, m]``.
        settings: number of resamples and seed.
    """
    count = len(values)
    rng = np.random.default_rng(settings.seed)
    means = np.empty((settings.resamples, values.shape[1]))
    rows = max(1, _BLOCK // count)
    for first in range(0, settings.resamples, rows):
        block = min(rows, settings.resamples - first)
        drawn = rng.integers(0, count, (block, count)) + count * np.arange(block)[:, None]
        times = np.bincount(drawn.ravel(), minlength=block * count).reshape(block, count)
        means[first : first + block] = times @ values / count
    return means


def compare(
    by_query: Mapping[str, NDArray[np.float64]],
    baseline: str,
    settings: SignificanceSettings,
    resampled: Resampled | None = None,
) -> dict[str, Comparison]:
    """Every other system against the baseline; Holm's correction is over all of them.

    Args:
        by_query: float64 ``[queries]`` by the system's name; of one measure.
        baseline: one of the names.
        settings: of the bootstrap.
        resampled: of the same values, if it is there already.
    """
    resampled = resampled or Resampled(by_query, settings)
    others = [name for name in by_query if name != baseline]
    p_values = [paired_p_value(by_query[name], by_query[baseline]) for name in others]
    comparisons = {}
    for name, p_value, corrected in zip(others, p_values, holm(p_values), strict=True):
        difference = by_query[name] - by_query[baseline]
        low, high = resampled.difference(name, baseline)
        wins, losses = int((difference > _TIE).sum()), int((difference < -_TIE).sum())
        comparisons[name] = Comparison(
            difference=float(difference.mean()),
            low=low,
            high=high,
            p_value=p_value,
            p_holm=corrected,
            wins=wins,
            ties=len(difference) - wins - losses,
            losses=losses,
        )
    return comparisons


def paired_p_value(ours: NDArray[np.float64], baseline: NDArray[np.float64]) -> float:
    """Two-sided paired t-test over queries; 1 where it has nothing to tell apart.

    That is when no query differs, when all differ by the same, and with fewer than two queries.
    """
    from scipy.stats import ttest_rel

    difference = ours - baseline
    if len(difference) < 2 or np.ptp(difference) <= _TIE:
        return 1.0
    return float(ttest_rel(ours, baseline).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979), in the order given.

    The i-th smallest of m is multiplied by m - i + 1; none may be smaller than the one before
    it, nor greater than 1. Rejecting what is at most alpha keeps the chance of any false
    rejection at alpha, whatever the dependence between the tests.
    """
    corrected = [0.0] * len(p_values)
    least = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = least
    return corrected
