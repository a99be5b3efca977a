"""Measuring rankings to the depth that a sweep reports: 100."""

from __future__ import annotations

from collections.abc import Sequence

from steelyard.eval.collection import JudgedQueries
from steelyard.eval.measures import MEASURES, measure
from steelyard.eval.runs import make_run
from steelyard.eval.sweeps.results import Quality
from steelyard.plugin.engine import Candidates
from steelyard.plugin.fusion import Fusion, fuse

_DEPTH = 100
_MEASURES = {name: MEASURES[name] for name in ("ndcg@10", "recall@100")}


class Judge:
    """Measures many rankings of the same queries.

    Args:
        judged: the queries.
    """

    def __init__(self, judged: JudgedQueries) -> None:
        self._judged, self._ids = judged, [query.id for query in judged.queries]

    def quality(self, rankings: Sequence[Candidates]) -> Quality:
        """Of rankings in the order of the queries."""
        shallow = [Candidates(one.ids[:_DEPTH], one.scores[:_DEPTH]) for one in rankings]
        run = make_run("sweep", self._judged.queries, shallow)
        means = measure(run, self._judged.qrels, self._ids, _MEASURES).means
        return Quality(means["ndcg@10"], means["recall@100"])

    def fused(
        self, dense: Sequence[Candidates], sparse: Sequence[Candidates], fusion: Fusion
    ) -> Quality:
        """Of both arms joined."""
        pairs = zip(dense, sparse, strict=True)
        return self.quality([fuse(pair, fusion, _DEPTH) for pair in pairs])
