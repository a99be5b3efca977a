"""Exact search in memory over the vectors of one generation.

For evaluation, where thousands of queries ask for a thousand candidates each, and as the
reference that an engine's own ranking is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from steelyard.errors import InputError
from steelyard.plugin.engine import (
    MATCH,
    NO_CANDIDATES,
    VECTOR_ARMS,
    AbsentArm,
    Arm,
    Candidates,
    Generation,
    StoredDocument,
    best_first,
)
from steelyard.plugin.filters import Filter
from steelyard.types import DenseVectors, EncodedDocuments, SparseVectors

_CHUNK = 64


class ExactIndex:
    """One generation held in memory.

    Args:
        generation: what it is a copy of.
        content: its documents; ``sparse`` holds the engine's impacts.
    """

    def __init__(self, generation: Generation, content: EncodedDocuments) -> None:
        self.generation = generation
        self._documents = {
            document.id: (row, document) for row, document in enumerate(content.documents)
        }
        ids = [document.id for document in content.documents]
        self._content = content
        self.dense = _DenseArm(ids, content.dense)
        self.sparse = _SparseArm(ids, content.sparse, generation.scale)
        self.match: Arm[Sequence[str]] = AbsentArm(MATCH, "exact search in memory")
        self.arms = VECTOR_ARMS

    def get(
        self,
        ids: Sequence[str],
        *,
        vectors: bool = False,
        terms: bool = False,
        timeout: float | None = None,
    ) -> Mapping[str, StoredDocument]:
        """Documents by id; unknown ids are left out."""
        del timeout
        found = {}
        for identifier in ids:
            if identifier in self._documents:
                row, document = self._documents[identifier]
                found[identifier] = StoredDocument(
                    document,
                    self._content.dense[row] if vectors else None,
                    self._content.sparse.row(row) if terms else None,
                )
        return found

    def count(self) -> int:
        """Number of documents."""
        return len(self._documents)

    def export(self) -> EncodedDocuments:
        """What it was made of."""
        return self._content


class _DenseArm:
    def __init__(self, ids: list[str], vectors: DenseVectors) -> None:
        self._ids, self._vectors = ids, vectors

    def search(
        self,
        queries: DenseVectors,
        k: int,
        *,
        filter: Filter | None = None,
        offset: int = 0,
        timeout: float | None = None,
    ) -> list[Candidates]:
        """Inner products with every document."""
        del timeout  # nothing is waited for
        _refuse_filter(filter)
        answers: list[Candidates] = []
        for first in range(0, len(queries), _CHUNK):
            chunk = queries[first : first + _CHUNK]
            scores = (chunk @ self._vectors.T).astype(np.float64)
            for query, row in zip(chunk, scores, strict=True):
                answers.append(_page(self._ids, row, k, offset) if query.any() else NO_CANDIDATES)
        return answers


class _SparseArm:
    def __init__(self, ids: list[str], vectors: SparseVectors, scale: float) -> None:
        self._ids, self._by_term, self._scale = ids, vectors.to_csr().T.tocsr(), scale

    def search(
        self,
        queries: SparseVectors,
        k: int,
        *,
        filter: Filter | None = None,
        offset: int = 0,
        timeout: float | None = None,
    ) -> list[Candidates]:
        """Inner products with every document that shares a term."""
        del timeout  # nothing is waited for
        _refuse_filter(filter)
        answers: list[Candidates] = []
        matrix = queries.to_csr()
        for first in range(0, len(queries), _CHUNK):
            products = (matrix[first : first + _CHUNK] @ self._by_term).tocsr()
            for row in range(products.shape[0]):
                span = slice(products.indptr[row], products.indptr[row + 1])
                ids = [self._ids[i] for i in products.indices[span].tolist()]
                scores = products.data[span].astype(np.float64) / self._scale
                answers.append(_page(ids, scores, k, offset))
        return answers


def _page(ids: list[str], scores: NDArray[np.float64], k: int, offset: int) -> Candidates:
    best = best_first(ids, scores, offset + k)
    return Candidates(best.ids[offset:], best.scores[offset:])


def _refuse_filter(filter: Filter | None) -> None:
    if filter is not None:
        raise InputError(
            "exact search in memory takes no filter", "search the engine itself for that"
        )
