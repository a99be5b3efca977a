"""Encoded queries to fused rankings over one open index."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from steelyard.plugin.engine import Candidates, SearchIndex
from steelyard.plugin.feedback import refine
from steelyard.plugin.filters import Filter
from steelyard.plugin.fusion import Fusion, fuse
from steelyard.types import DenseVectors, EncodedQueries


@dataclass(frozen=True, slots=True)
class Ranking:
    """One query's fused ranking with the arms it came from."""

    fused: Candidates
    dense: Candidates
    sparse: Candidates


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
    """Both arms in parallel, fused; with feedback the dense arm runs once more.

    Args:
        index: what to search.
        queries: n encoded queries.
        fusion: how to join the arms.
        candidates: how many each arm gives.
        threads: the arms run here.
        filter: applied inside the arms.
        feedback: number of best documents that refine the query; 0 is off.
    """
    sparse_later = threads.submit(index.sparse.search, queries.sparse, candidates, filter=filter)
    dense = index.dense.search(queries.dense, candidates, filter=filter)
    sparse = sparse_later.result()
    answers = [Ranking(fuse((d, s), fusion), d, s) for d, s in zip(dense, sparse, strict=True)]
    if feedback < 1:
        return answers
    first = [answer.fused for answer in answers]
    refined = feedback_queries(index, queries.dense, first, feedback)
    dense = index.dense.search(refined, candidates, filter=filter)
    return [
        replace(answer, fused=fuse((again, answer.sparse), fusion), dense=again)
        for answer, again in zip(answers, dense, strict=True)
    ]


def feedback_queries(
    index: SearchIndex, queries: DenseVectors, rankings: Sequence[Candidates], depth: int
) -> DenseVectors:
    """The dense queries ``[n, d]`` refined by the vectors of each ranking's best documents.

    A zero query (no known token) stays zero.
    """
    refined = queries.copy()
    for row, ranking in enumerate(rankings):
        best = ranking.ids[:depth]
        if not best or not refined[row].any():
            continue
        stored = index.get(best, vectors=True)
        known = [i for i, identifier in enumerate(best) if identifier in stored]
        vectors = [stored[best[i]].dense for i in known]
        refined[row] = refine(refined[row], np.array(vectors), ranking.scores[known])
    return refined
