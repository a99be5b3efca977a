"""Exact dense search: the inner product with every document, block by block."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from steelyard.errors import EngineError, InputError
from steelyard.plugin.engine import NO_CANDIDATES, Candidates, best_first
from steelyard.plugin.filter_mask import FilterMasks
from steelyard.plugin.filters import Filter
from steelyard.types import DenseVectors

_QUERIES = 64
_DOCUMENTS = 65_536
"""Scored at once: 16 MB of products."""


class FlatArm:
    """A matrix of vectors, which may be a file mapped into memory.

    Args:
        name: of the index, for messages.
        ids: of n documents.
        vectors: float32 ``[n, d]``.
        masks: of the same documents.
    """

    def __init__(
        self, name: str, ids: Sequence[str], vectors: DenseVectors, masks: FilterMasks
    ) -> None:
        self._name, self._ids, self._vectors, self._masks = name, ids, vectors, masks

    def search(
        self,
        queries: DenseVectors,
        k: int,
        *,
        filter: Filter | None = None,
        offset: int = 0,
        timeout: float | None = None,
    ) -> list[Candidates]:
        """Ranks by inner product; see ``Arm.search``."""
        check_window(k, offset)
        if queries.shape[1] != self._vectors.shape[1]:
            raise EngineError(
                f"queries of {queries.shape[1]} dimensions for {self._name}, which has "
                f"{self._vectors.shape[1]}",
                "search with a pack of the index's space",
            )
        deadline = None if timeout is None else time.monotonic() + timeout
        allowed = None if filter is None else np.flatnonzero(self._masks.mask(filter))
        answers: list[Candidates] = []
        for first in range(0, len(queries), _QUERIES):
            chunk = queries[first : first + _QUERIES]
            best = self._best_rows(chunk, offset + k, allowed, deadline)
            for query, (rows, scores) in zip(chunk, best, strict=True):
                ids = [self._ids[row] for row in rows.tolist()]
                found = best_first(ids, scores.astype(np.float64), offset + k)
                page = Candidates(found.ids[offset:], found.scores[offset:])
                answers.append(page if query.any() else NO_CANDIDATES)
        return answers

    def _best_rows(
        self,
        queries: DenseVectors,
        k: int,
        allowed: NDArray[np.int64] | None,
        deadline: float | None,
    ) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Of each query the rows that may be among its k best, ties at the end all kept."""
        found = [(np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in queries]
        for first in range(0, len(self._vectors), _DOCUMENTS):
            if deadline is not None and time.monotonic() > deadline:
                raise EngineError(
                    f"the dense arm of {self._name} took longer than its time limit",
                    "give it more time",
                )
            last = min(first + _DOCUMENTS, len(self._vectors))
            if allowed is None:
                rows = np.arange(first, last)
                products = queries @ self._vectors[first:last].T
            else:
                span = np.searchsorted(allowed, (first, last))
                rows = allowed[span[0] : span[1]]
                products = queries @ self._vectors[rows].T
            for query, scores in enumerate(products):
                kept_rows, kept = found[query]
                found[query] = _best(
                    np.concatenate([kept_rows, rows]), np.concatenate([kept, scores]), k
                )
        return found


def check_window(k: int, offset: int) -> None:
    """Refuse ranks that are not there."""
    if k < 1 or offset < 0:
        raise InputError(f"offset {offset} + k {k} candidates", "ask for at least one from 0 on")


def _best(
    rows: NDArray[np.int64], scores: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    if len(rows) <= k:
        return rows, scores
    keep = scores >= np.partition(scores, len(rows) - k)[len(rows) - k]
    return rows[keep], scores[keep]
