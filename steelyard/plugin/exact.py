"""Exact search in memory over the vectors of one generation.

For evaluation, where thousands of queries ask for a thousand candidates each, and as the
reference that an engine's own ranking is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from steelyard.plugin.abilities import check_find
from steelyard.plugin.engine import (
    MATCH,
    VECTOR_ARMS,
    AbsentArm,
    Arm,
    Candidates,
    Generation,
    StoredDocument,
    best_first,
)
from steelyard.plugin.filter_mask import FilterMasks
from steelyard.plugin.filters import Filter
from steelyard.plugin.flat import FlatArm, check_window
from steelyard.types import EncodedDocuments, SparseVectors

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
        masks = self._masks = FilterMasks(
            generation.fields,
            len(ids),
            lambda field: [document.metadata.get(field) for document in content.documents],
        )
        self.dense = FlatArm(generation.name, ids, content.dense, masks)
        self.sparse = _SparseArm(ids, content.sparse, generation.scale, masks)
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

    def find(
        self,
        *,
        parents: Sequence[str] | None = None,
        filter: Filter | None = None,
        timeout: float | None = None,
    ) -> list[str]:
        """Ids by parent and filter: see ``FindsIds``."""
        del timeout
        check_find(parents, filter)
        wanted = None if parents is None else set(parents)
        mask = None if filter is None else self._masks.mask(filter)
        return sorted(
            identifier
            for identifier, (row, document) in self._documents.items()
            if (wanted is None or (document.parent_id or identifier) in wanted)
            and (mask is None or mask[row])
        )

    def count(self) -> int:
        """Number of documents."""
        return len(self._documents)

    def export(self) -> EncodedDocuments:
        """What it was made of."""
        return self._content


class _SparseArm:
    def __init__(
        self, ids: list[str], vectors: SparseVectors, scale: float, masks: FilterMasks
    ) -> None:
        self._ids, self._by_term, self._scale = ids, vectors.to_csr().T.tocsr(), scale
        self._masks = masks

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
        check_window(k, offset)
        allowed = None if filter is None else self._masks.mask(filter)
        answers: list[Candidates] = []
        matrix = queries.to_csr()
        for first in range(0, len(queries), _CHUNK):
            products = (matrix[first : first + _CHUNK] @ self._by_term).tocsr()
            for row in range(products.shape[0]):
                span = slice(products.indptr[row], products.indptr[row + 1])
                rows, scores = products.indices[span], products.data[span]
                if allowed is not None:
                    keep = allowed[rows]
                    rows, scores = rows[keep], scores[keep]
                ids = [self._ids[i] for i in rows.tolist()]
                best = best_first(ids, scores.astype(np.float64) / self._scale, offset + k)
                answers.append(Candidates(best.ids[offset:], best.scores[offset:]))
        return answers
