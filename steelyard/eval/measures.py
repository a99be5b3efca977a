"""Measures by ir-measures, and a paired significance test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steelyard.errors import needs_extra
from steelyard.eval.runs import Run

MEASURES = {"ndcg@10": "nDCG@10", "recall@100": "R@100", "rr@10": "RR@10", "ap": "AP"}
"""Our names and ir-measures' names."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Values of one run: means, and float64 ``[queries]`` for each measure."""

    means: dict[str, float]
    by_query: dict[str, NDArray[np.float64]]


def measure(run: Run, qrels: dict[str, dict[str, int]], queries: list[str]) -> Measured:
    """Measure a run on the judged queries; one that was not answered scores 0."""
    with needs_extra("eval"):
        import ir_measures

    parsed = {name: ir_measures.parse_measure(text) for name, text in MEASURES.items()}
    names = {value: key for key, value in parsed.items()}
    position = {query: row for row, query in enumerate(queries)}
    by_query = {name: np.zeros(len(queries)) for name in MEASURES}
    judged = {query: qrels[query] for query in queries}
    for metric in ir_measures.iter_calc(list(parsed.values()), judged, run.scores):
        by_query[names[metric.measure]][position[metric.query_id]] = metric.value
    return Measured({name: float(values.mean()) for name, values in by_query.items()}, by_query)


def paired_p_value(ours: NDArray[np.float64], baseline: NDArray[np.float64]) -> float:
    """Two-sided paired t-test over queries; 1 where it has nothing to tell apart.

    That is when no query differs, when all differ by the same, and with fewer than two queries.
    """
    from scipy.stats import ttest_rel

    difference = ours - baseline
    if len(difference) < 2 or np.ptp(difference) == 0:
        return 1.0
    return float(ttest_rel(ours, baseline).pvalue)
