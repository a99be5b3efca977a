"""Systems over one index and judged queries: rankings, measures, encoding speed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steelyard.encoders.documents.protocol import FullModel
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import InputError
from steelyard.eval.collection import JudgedQueries
from steelyard.eval.encodings import FullQueries, PackQueries
from steelyard.eval.measures import MEASURES, Measured, measure, too_deep
from steelyard.eval.runs import Run, make_run
from steelyard.eval.systems import System
from steelyard.plugin.engine import DENSE, MATCH, SPARSE, Candidates, SearchIndex
from steelyard.plugin.fusion import Fusion, fuse_arms
from steelyard.plugin.ranking import feedback_queries
from steelyard.progress import Progress

EVALUATION_CANDIDATES = 1000
"""Candidates of each arm where nobody says: as in the paper, and what recall@1000 needs."""


@dataclass(frozen=True, slots=True)
class SystemResult:
    """What a system returned, and its measures.

    Attributes:
        system: what answered.
        run: its rankings.
        measured: less the recalls that look deeper than the rankings go.
        encode_qps: queries encoded a second; None where nothing was encoded.
        measures: our names of all that were asked for.
    """

    system: System
    run: Run
    measured: Measured
    encode_qps: float | None = None
    measures: tuple[str, ...] = tuple(MEASURES)

    @property
    def means(self) -> dict[str, float | None]:
        """All means; None for what was not measured."""
        return {name: self.measured.means.get(name) for name in self.measures}

    def row(self) -> dict[str, Any]:
        """As JSON, for tables without tests."""
        qps = None if self.encode_qps is None else round(self.encode_qps, 1)
        means = {n: None if v is None else round(v, 4) for n, v in self.means.items()}
        return {"system": self.system.name, **means, "encode_qps": qps}


def evaluate(
    systems: Sequence[System],
    judged: JudgedQueries,
    queries: QueryEncoder,
    index: SearchIndex,
    open_full_model: Callable[[], FullModel],
    progress: Progress,
    *,
    fusion: Fusion,
    candidates: int,
    measures: Mapping[str, str] = MEASURES,
) -> list[SystemResult]:
    """Evaluate systems on one index; each arm is searched once, whichever systems share it.

    Args:
        systems: what to compare.
        judged: the queries.
        queries: the pack.
        index: the documents.
        open_full_model: called only when a system needs the full model.
        progress: shows the searches.
        fusion, candidates: as in the searcher.
        measures: our names and ir-measures' names.
    """
    if not systems:
        raise InputError("no system to evaluate")
    texts = [query.text for query in judged.queries]
    encoded = PackQueries(queries, texts, FullQueries(texts, open_full_model, progress))
    for system in systems:
        encoded.check(system)
    arms = Arms(index, encoded)
    results = []
    with progress.stage("search", len(systems)) as advance:
        for system in systems:
            rankings = arms.answer(system, fusion, candidates)
            run = make_run(system.name, judged.queries, rankings)
            qps = encoded.queries_per_second(system)
            depth = min_depth(candidates, index)
            results.append(measured_run(system, run, judged, measures, depth, qps))
            advance(1)
    return results


def min_depth(candidates: int, index: SearchIndex) -> int | None:
    """How deep rankings of so many candidates go; None where they can hold every document."""
    return None if candidates >= index.count() else candidates


def measured_run(
    system: System,
    run: Run,
    judged: JudgedQueries,
    measures: Mapping[str, str] = MEASURES,
    depth: int | None = None,
    encode_qps: float | None = None,
) -> SystemResult:
    """Measure a run.

    Args:
        system, run: what answered, and its rankings.
        judged: the queries.
        measures: our names and ir-measures' names.
        depth: at which the rankings were cut; deeper recalls are left out. None: nowhere.
        encode_qps: queries encoded a second.
    """
    deep = [] if depth is None else too_deep(measures, depth)
    wanted = {name: text for name, text in measures.items() if name not in deep}
    ids = [query.id for query in judged.queries]
    measured = measure(run, judged.qrels, ids, wanted)
    return SystemResult(system, run, measured, encode_qps, tuple(measures))


class Arms:
    """Searches each arm of one index once, however many systems share it.

    Args:
        index: the documents.
        encoded: the queries.
        matching: where the engine's own BM25 is searched; None is ``index``.
    """

    def __init__(
        self, index: SearchIndex, encoded: PackQueries, matching: SearchIndex | None = None
    ) -> None:
        self._index, self._encoded, self._matching = index, encoded, matching or index
        self._found: dict[tuple[str, int], list[Candidates]] = {}

    def answer(
        self,
        system: System,
        fusion: Fusion,
        candidates: int,
        sparse: Arms | None = None,
    ) -> list[Candidates]:
        """A ranking a query, as deep as an arm's.

        Args:
            system: what answers.
            fusion, candidates: as in the searcher.
            sparse: where the sparse arm is searched; None: here.
        """
        texts, encoded = self._encoded.texts, self._encoded
        arms: dict[str, list[Candidates]] = {}
        if system.dense:
            arms[DENSE] = self._once(
                system.dense,
                candidates,
                lambda: self._index.dense.search(encoded.dense(str(system.dense)), candidates),
            )
        if system.sparse:
            arms[SPARSE] = (sparse or self).search_sparse(candidates)
        if system.match:
            arms[MATCH] = self._once(
                MATCH, candidates, lambda: self._matching.match.search(texts, candidates)
            )
        rankings = _joined(arms, fusion, candidates)
        if not system.dense or not system.feedback:
            return rankings
        vectors = encoded.dense(system.dense)
        refined = feedback_queries(self._index, vectors, rankings, system.feedback)
        again = {**arms, DENSE: self._index.dense.search(refined, candidates)}
        return _joined(again, fusion, candidates)

    def search_sparse(self, candidates: int) -> list[Candidates]:
        """The sparse arm's ranking for each query."""
        return self._once(
            SPARSE,
            candidates,
            lambda: self._index.sparse.search(self._encoded.sparse, candidates),
        )

    def _once(
        self, name: str, candidates: int, search: Callable[[], list[Candidates]]
    ) -> list[Candidates]:
        key = (name, candidates)
        if key not in self._found:
            self._found[key] = search()
        return self._found[key]


def _joined(arms: dict[str, list[Candidates]], fusion: Fusion, depth: int) -> list[Candidates]:
    """Fused rankings, as deep as an arm's; those of a single arm as they are."""
    if len(arms) == 1:
        return next(iter(arms.values()))
    return [
        fuse_arms(dict(zip(arms, each, strict=True)), fusion, depth)
        for each in zip(*arms.values(), strict=True)
    ]
