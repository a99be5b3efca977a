"""Systems over one index and judged queries: rankings, measures, encoding speed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from steelyard.encoders.documents.batching import encode_in_batches
from steelyard.encoders.documents.protocol import FullModel
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import InputError
from steelyard.eval.collection import JudgedQueries
from steelyard.eval.measures import Measured, measure, paired_p_value
from steelyard.eval.runs import Run, make_run
from steelyard.eval.systems import FEEDBACK_DOCUMENTS, System
from steelyard.plugin.engine import Candidates, SearchIndex
from steelyard.plugin.fusion import Fusion, fuse
from steelyard.plugin.ranking import feedback_queries
from steelyard.progress import Progress
from steelyard.types import DenseVectors, SparseVectors

_TIMED_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class SystemResult:
    """One row of the table."""

    system: System
    run: Run
    measured: Measured
    encode_qps: float
    p_value: float

    def row(self) -> dict[str, Any]:
        """As JSON; ``p_value`` is the paired t-test of nDCG@10 against the first system."""
        return {
            "system": self.system.name,
            **{name: round(value, 4) for name, value in self.measured.means.items()},
            "encode_qps": round(self.encode_qps, 1),
            "p_value": self.p_value,
        }


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
    feedback: int = FEEDBACK_DOCUMENTS,
) -> list[SystemResult]:
    """Evaluate systems on one index; each arm is searched once, whichever systems share it.

    Args:
        systems: what to compare; the first is the baseline of the significance test.
        judged: the queries.
        queries: the pack.
        index: the documents.
        open_full_model: called only when a system needs the full model.
        progress: shows the searches.
        fusion, candidates: as in the searcher.
        feedback: documents that refine a query in systems with feedback.
    """
    if not systems:
        raise InputError("no system to evaluate")
    kind = queries.metadata.sparse.kind
    other = next((s for s in systems if s.sparse not in (None, kind)), None)
    if other is not None:
        raise InputError(
            f"system {other.name!r} wants a {other.sparse} arm, the pack has {kind}",
            f"write {other.name.replace(str(other.sparse), kind)!r}",
        )
    texts = [query.text for query in judged.queries]
    encodings = _encode(systems, texts, queries, open_full_model, progress)
    arms = _Arms(index, encodings, candidates)
    rankings = {}
    with progress.stage("search", len(systems)) as advance:
        for system in systems:
            rankings[system.name] = arms.answer(system, fusion, feedback)
            advance(1)
    ids = [query.id for query in judged.queries]
    runs = {s.name: make_run(s.name, judged.queries, rankings[s.name]) for s in systems}
    measured = {name: measure(run, judged.qrels, ids) for name, run in runs.items()}
    baseline = measured[systems[0].name].by_query["ndcg@10"]
    return [
        SystemResult(
            system,
            runs[system.name],
            measured[system.name],
            encodings.queries_per_second(system),
            paired_p_value(measured[system.name].by_query["ndcg@10"], baseline),
        )
        for system in systems
    ]


@dataclass(frozen=True, slots=True)
class _Encodings:
    """The queries, encoded once for all systems, and what that cost a query."""

    dense: dict[str, DenseVectors]
    sparse: SparseVectors
    seconds: dict[tuple[str | None, bool], float]

    def queries_per_second(self, system: System) -> float:
        return 1 / self.seconds[system.dense, system.sparse is not None]


def _encode(
    systems: Sequence[System],
    texts: list[str],
    queries: QueryEncoder,
    open_full_model: Callable[[], FullModel],
    progress: Progress,
) -> _Encodings:
    dense: dict[str, DenseVectors] = {}
    seconds: dict[tuple[str | None, bool], float] = {}
    sparse = queries.encode_sparse(texts)
    seconds[None, True] = _seconds_a_query(lambda: queries.encode_sparse(texts), len(texts))
    if any(system.dense == "lookup" for system in systems):
        dense["lookup"] = queries.encode_dense(texts)
        seconds["lookup", False] = _seconds_a_query(
            lambda: queries.encode_dense(texts), len(texts)
        )
        seconds["lookup", True] = _seconds_a_query(lambda: queries.encode_query(texts), len(texts))
    if any(system.dense == "full" for system in systems):
        with progress.stage("encode queries with the full model"):
            model = open_full_model()
            lengths = model.token_lengths(texts)

            def encode() -> DenseVectors:
                return encode_in_batches(texts, lengths, model.encode_query, model.dims)

            dense["full"] = encode()
            seconds["full", False] = _seconds_a_query(encode, len(texts))
            seconds["full", True] = seconds["full", False] + seconds[None, True]
    return _Encodings(dense, sparse, seconds)


def _seconds_a_query(encode: Callable[[], object], count: int) -> float:
    """Median over runs that fill half a second; the caller has warmed it up."""
    runs: list[float] = []
    while not runs or sum(runs) < _TIMED_SECONDS:
        started = time.perf_counter()
        encode()
        runs.append(time.perf_counter() - started)
    return statistics.median(runs) / count


class _Arms:
    """Searches each arm once, however many systems share it."""

    def __init__(self, index: SearchIndex, encodings: _Encodings, candidates: int) -> None:
        self._index, self._encodings, self._candidates = index, encodings, candidates
        self._dense: dict[str, list[Candidates]] = {}
        self._sparse: list[Candidates] | None = None

    def answer(self, system: System, fusion: Fusion, feedback: int) -> list[Candidates]:
        sparse = self._search_sparse() if system.sparse else None
        if system.dense is None:
            return sparse or []
        rankings = self._joined(self._search_dense(system.dense), sparse, fusion)
        if not system.feedback:
            return rankings
        vectors = self._encodings.dense[system.dense]
        refined = feedback_queries(self._index, vectors, rankings, feedback)
        again = self._index.dense.search(refined, self._candidates)
        return self._joined(again, sparse, fusion)

    def _search_dense(self, source: str) -> list[Candidates]:
        if source not in self._dense:
            vectors = self._encodings.dense[source]
            self._dense[source] = self._index.dense.search(vectors, self._candidates)
        return self._dense[source]

    def _search_sparse(self) -> list[Candidates]:
        if self._sparse is None:
            self._sparse = self._index.sparse.search(self._encodings.sparse, self._candidates)
        return self._sparse

    def _joined(
        self, dense: list[Candidates], sparse: list[Candidates] | None, fusion: Fusion
    ) -> list[Candidates]:
        """Fused rankings, as deep as an arm's."""
        if sparse is None:
            return dense
        depth = self._candidates
        return [fuse((d, s), fusion, depth) for d, s in zip(dense, sparse, strict=True)]
