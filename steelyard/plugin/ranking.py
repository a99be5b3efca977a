"""Encoded queries to fused rankings: the plan of which arms are asked, and when.

A plan is a generator. It yields questions that may be asked at the same time, is sent their
answers (an ``EngineError`` where there is none), and returns its result. Who drives it decides
between threads and an event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np

from steelyard.errors import EngineError
from steelyard.plugin.deadline import Deadline
from steelyard.plugin.engine import (
    DENSE,
    MATCH,
    SPARSE,
    VECTOR_ARMS,
    Candidates,
    SearchIndex,
    StoredDocument,
)
from steelyard.plugin.feedback import refine
from steelyard.plugin.filters import Filter
from steelyard.plugin.fusion import Fusion, fuse_arms
from steelyard.plugin.search.calls import Call, Fetch, SearchArm, SearchBoth, SearchFused
from steelyard.plugin.search.drive import drive
from steelyard.types import DenseVectors, EncodedQueries

T = TypeVar("T")
Plan: TypeAlias = Generator[Sequence[Call], Sequence[Any], T]

FEEDBACK = "feedback"

TOGETHER = 300
"""Candidates up to which both arms are asked in one request: decoding two long answers one after
the other takes longer than a second round trip at the same time."""


@dataclass(frozen=True, slots=True)
class Method:
    """How queries are ranked.

    Attributes:
        fusion: how the arms are joined.
        candidates: how many each arm gives.
        arms: which take part.
        filter: applied inside the arms.
        feedback: number of best documents that refine the query; 0 is off.
        fused_by_engine: the engine joins the arms; what each arm said is not known then.
        degrade: go on without an arm that fails, as long as one answers.
        together: both vector arms of a single query are asked in one request.
        depth: so many fused ranks are needed; None is all. Sorting all of 1,000 candidates an arm
            takes as long as the rest of the fusion.
    """

    fusion: Fusion
    candidates: int
    arms: tuple[str, ...] = VECTOR_ARMS
    filter: Filter | None = None
    feedback: int = 0
    fused_by_engine: bool = False
    degrade: bool = False
    together: bool = False
    depth: int | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """One query's fused ranking with the arms it came from."""

    fused: Candidates
    arms: Mapping[str, Candidates]


@dataclass(frozen=True, slots=True)
class Rankings:
    """Those of n queries, and what did not answer.

    Attributes:
        each: one a query.
        missing: error by arm, or by ``feedback``.
        refined: whether feedback has changed the dense queries.
    """

    each: list[Ranking]
    missing: dict[str, EngineError] = field(default_factory=dict)
    refined: bool = False


def ranking_plan(queries: EncodedQueries, texts: Sequence[str], method: Method) -> Plan[Rankings]:
    """All arms at once, then fused; with feedback the dense arm once more.

    Args:
        queries: n encoded queries.
        texts: the n queries as they were written, for the ``match`` arm.
        method: how.

    Raises:
        EngineError: an arm failed; with ``degrade``, all of them.
    """
    missing: dict[str, EngineError] = {}
    if method.fused_by_engine:
        (answer,) = yield [_fused_call(queries.dense, queries, method)]
        rankings = [Ranking(fused, {}) for fused in checked(answer)]
        arms: dict[str, list[Candidates]] = {}
    else:
        answers = yield from _arm_answers(queries, texts, method)
        arms = {}
        for arm, answer in zip(method.arms, answers, strict=True):
            if isinstance(answer, EngineError):
                missing[arm] = answer
            else:
                arms[arm] = answer
        if missing and not (method.degrade and arms):
            raise next(iter(missing.values()))
        rankings = _fused(arms, method)
    if not method.feedback or DENSE in missing or DENSE not in method.arms:
        return Rankings(rankings, missing)
    best = [ranking.fused.ids[: method.feedback] for ranking in rankings]
    wanted = list(dict.fromkeys(identifier for ids in best for identifier in ids))
    if not wanted:
        return Rankings(rankings, missing)
    (stored,) = yield [Fetch(wanted, vectors=True)]
    again: Any = stored
    if not isinstance(stored, EngineError):
        fused = [ranking.fused for ranking in rankings]
        refined = refined_queries(stored, queries.dense, fused, method.feedback)
        if method.fused_by_engine:
            (again,) = yield [_fused_call(refined, queries, method)]
        else:
            (again,) = yield [SearchArm(DENSE, refined, method.candidates, method.filter)]
    if isinstance(again, EngineError):
        if not method.degrade:
            raise again
        return Rankings(rankings, missing | {FEEDBACK: again})
    if method.fused_by_engine:
        return Rankings([Ranking(fused, {}) for fused in again], missing, refined=True)
    return Rankings(_fused(arms | {DENSE: again}, method), missing, refined=True)


def _arm_answers(
    queries: EncodedQueries, texts: Sequence[str], method: Method
) -> Plan[Sequence[Any]]:
    """One a searched arm: candidates of each query, or the arm's error."""
    together = method.together and method.candidates <= TOGETHER and len(queries) == 1
    if together and set(method.arms) == set(VECTOR_ARMS):
        (both,) = yield [
            SearchBoth(queries.dense, queries.sparse, method.candidates, method.filter)
        ]
        failed = isinstance(both, EngineError)
        return [both if failed else both[arm] for arm in method.arms]
    asked = {DENSE: queries.dense, SPARSE: queries.sparse, MATCH: texts}
    return (
        yield [
            SearchArm(arm, asked[arm], method.candidates, method.filter)  # type: ignore[arg-type]
            for arm in method.arms
        ]
    )


def rank(
    index: SearchIndex,
    queries: EncodedQueries,
    fusion: Fusion,
    candidates: int,
    threads: ThreadPoolExecutor,
    *,
    filter: Filter | None = None,
    feedback: int = 0,
) -> list[Ranking]:
    """Both vector arms of many queries, in threads: see ``ranking_plan``."""
    method = Method(fusion, candidates, filter=filter, feedback=feedback)
    plan = ranking_plan(queries, [""] * len(queries), method)
    return drive(plan, index, _OnePool(threads), Deadline(None)).each


@dataclass(frozen=True, slots=True)
class _OnePool:
    """One pool for all kinds of questions: nobody waits here for a deadline."""

    pool: ThreadPoolExecutor

    def submit(self, kind: str, ask: Callable[..., T], *arguments: Any) -> Future[T]:
        del kind
        return self.pool.submit(ask, *arguments)


def feedback_queries(
    index: SearchIndex, queries: DenseVectors, rankings: Sequence[Candidates], depth: int
) -> DenseVectors:
    """The dense queries ``[n, d]`` refined by the vectors of each ranking's best documents."""
    wanted = list(dict.fromkeys(i for ranking in rankings for i in ranking.ids[:depth]))
    return refined_queries(index.get(wanted, vectors=True), queries, rankings, depth)


def refined_queries(
    stored: Mapping[str, StoredDocument],
    queries: DenseVectors,
    rankings: Sequence[Candidates],
    depth: int,
) -> DenseVectors:
    """The dense queries ``[n, d]`` refined by stored documents' vectors.

    A zero query (no known token) stays zero. A document that is not stored any more is left out.
    """
    refined = queries.copy()
    for row, ranking in enumerate(rankings):
        best = ranking.ids[:depth]
        if not best or not refined[row].any():
            continue
        found = [(i, stored[one].dense) for i, one in enumerate(best) if one in stored]
        known = [(i, dense) for i, dense in found if dense is not None]
        vectors = np.array([dense for _, dense in known])
        scores = ranking.scores[[i for i, _ in known]]
        refined[row] = refine(refined[row], vectors, scores)
    return refined


def checked(answer: Any) -> Any:
    """An answer that must be there."""
    if isinstance(answer, EngineError):
        raise answer
    return answer


def _fused_call(dense: DenseVectors, queries: EncodedQueries, method: Method) -> SearchFused:
    return SearchFused(
        dense, queries.sparse, method.fusion, method.candidates, method.candidates, method.filter
    )


def _fused(arms: Mapping[str, list[Candidates]], method: Method) -> list[Ranking]:
    rankings = []
    for each in zip(*arms.values(), strict=True):
        found = dict(zip(arms, each, strict=True))
        rankings.append(Ranking(fuse_arms(found, method.fusion, method.depth), found))
    return rankings
