"""Measuring rankings to the depth that a sweep reports: 100."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steelyard.eval.collection import JudgedQueries
from steelyard.eval.measures import MEASURES, measure
from steelyard.eval.runs import make_run
from steelyard.eval.significance import SignificanceSettings, resampled_means
from steelyard.eval.sweeps.results import Difference, Quality
from steelyard.plugin.engine import Candidates
from steelyard.plugin.fusion import Fusion, fuse

_DEPTH = 100
_NDCG, _RECALL = "ndcg@10", "recall@100"
_MEASURES = {name: MEASURES[name] for name in (_NDCG, _RECALL)}


@dataclass(frozen=True, slots=True)
class Graded:
    """How good rankings are: the means, and nDCG@10 of each query ``[queries]``."""

    quality: Quality
    ndcg10: NDArray[np.float64]


class Judge:
    """Measures many rankings of the same queries.

    Args:
        judged: the queries.
    """

    def __init__(self, judged: JudgedQueries) -> None:
        self._judged, self._ids = judged, [query.id for query in judged.queries]

    def grade(self, rankings: Sequence[Candidates]) -> Graded:
        """Of rankings in the order of the queries."""
        shallow = [Candidates(one.ids[:_DEPTH], one.scores[:_DEPTH]) for one in rankings]
        run = make_run("sweep", self._judged.queries, shallow)
        found = measure(run, self._judged.qrels, self._ids, _MEASURES)
        quality = Quality(found.means[_NDCG], found.means[_RECALL])
        return Graded(quality, found.by_query[_NDCG])

    def fused(
        self, dense: Sequence[Candidates], sparse: Sequence[Candidates], fusion: Fusion
    ) -> Graded:
        """Of both arms joined."""
        pairs = zip(dense, sparse, strict=True)
        return self.grade([fuse(pair, fusion, _DEPTH) for pair in pairs])


def differences(graded: Sequence[Graded], reference: int) -> list[Difference]:
    """Of each from the one at ``reference``; all share the same resamples of the queries."""
    settings = SignificanceSettings()
    values = np.stack([one.ndcg10 for one in graded], axis=1)
    values = values - values[:, [reference]]
    outside = (1 - settings.confidence) / 2
    ends = np.quantile(resampled_means(values, settings), [outside, 1 - outside], axis=0)
    return [
        Difference(float(mean), float(low), float(high))
        for mean, low, high in zip(values.mean(axis=0), *ends, strict=True)
    ]
