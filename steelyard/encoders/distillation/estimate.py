"""How much of the teacher a table keeps, without a judged query."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelyard.types import DenseVectors

DEPTH = 10
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class HeldOutEstimate:
    """Measured on pseudo-queries that were not trained on.

    A pseudo-query's source document is taken as its one answer; ``kept`` is the look-up's mean
    reciprocal rank (first 10) as a share of the teacher's. No text of these documents was
    trained on. It is an estimate: real queries use other words than the documents.

    ``fresh_rr_at_10`` is the look-up's mean reciprocal rank on pseudo-queries that are drawn anew
    from documents that were taught, the same for every table of a corpus: of two recipes on one
    corpus, the one with the higher value is likely the better. The teacher takes no part in it.
    """

    queries: int
    cosine: float
    overlap_at_10: float
    teacher_rr_at_10: float
    lookup_rr_at_10: float
    kept: float
    fresh_rr_at_10: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, rounded to what 600 queries can tell."""
        return {
            key: round(value, 4) if isinstance(value, float) else value
            for key, value in asdict(self).items()
        }


def estimate(
    lookup: DenseVectors,
    teacher: DenseVectors,
    documents: DenseVectors,
    sources: NDArray[np.int64],
    fresh_rr_at_10: float,
) -> HeldOutEstimate:
    """Compare look-up and teacher vectors ``[n, d]`` of the same held-out pseudo-queries."""
    by_lookup, by_teacher = top_documents(lookup, documents), top_documents(teacher, documents)
    overlap = np.mean(
        [len(np.intersect1d(a, b)) / DEPTH for a, b in zip(by_lookup, by_teacher, strict=True)]
    )
    teacher_rr = reciprocal_rank(by_teacher, sources)
    lookup_rr = reciprocal_rank(by_lookup, sources)
    return HeldOutEstimate(
        queries=len(lookup),
        cosine=float(np.mean(np.einsum("nd,nd->n", lookup, teacher))),
        overlap_at_10=float(overlap),
        teacher_rr_at_10=teacher_rr,
        lookup_rr_at_10=lookup_rr,
        kept=lookup_rr / teacher_rr if teacher_rr else 0.0,
        fresh_rr_at_10=fresh_rr_at_10,
    )


def top_documents(
    queries: DenseVectors, documents: DenseVectors, depth: int = DEPTH
) -> NDArray[np.int64]:
    """Indices of each query's best documents, best first, int64 ``[n, min(depth, N)]``."""
    depth = min(depth, len(documents))
    best = np.empty((len(queries), depth), dtype=np.int64)
    for first in range(0, len(queries), _CHUNK):
        scores = queries[first : first + _CHUNK] @ documents.T
        part = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
        ranks = np.argsort(-np.take_along_axis(scores, part, axis=1), axis=1, kind="stable")
        best[first : first + _CHUNK] = np.take_along_axis(part, ranks, axis=1)
    return best


def reciprocal_rank(best: NDArray[np.int64], sources: NDArray[np.int64]) -> float:
    """Mean reciprocal rank of each query's source ``[n]`` among its best documents ``[n, k]``."""
    hits = best == sources[:, None]
    ranks = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, np.inf)
    return float(np.mean(1 / ranks))
