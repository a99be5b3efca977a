"""One generation in Milvus, open for reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from steelyard.plugin.engine import (
    DENSE,
    MATCH,
    SPARSE,
    AbsentArm,
    Arm,
    Candidates,
    Generation,
    StoredDocument,
)
from steelyard.plugin.filters import Filter
from steelyard.plugin.milvus.connection import Connection, Deadline
from steelyard.plugin.milvus.errors import engine_error, quiet
from steelyard.plugin.milvus.layout import Layout
from steelyard.plugin.milvus.requests import (
    SearchPlan,
    plan_dense,
    plan_get,
    plan_sparse,
    read_documents,
)
from steelyard.plugin.milvus.rows import row_impacts, row_vector, stored_document
from steelyard.types import DenseVectors, EncodedDocuments, SparseVectors

_EXPORT_NUMBERS = 500_000


class MilvusIndex:
    """One collection, open for reading."""

    def __init__(self, connection: Connection, generation: Generation, layout: Layout) -> None:
        self._connection, self._layout = connection, layout
        self.generation = generation
        name = generation.name
        self.dense: Arm[DenseVectors] = (
            DenseArm(connection, generation, layout) if layout.dense else AbsentArm(DENSE, name)
        )
        self.sparse: Arm[SparseVectors] = (
            SparseArm(connection, generation, layout) if layout.sparse else AbsentArm(SPARSE, name)
        )
        self.match: Arm[Sequence[str]] = AbsentArm(MATCH, name)
        self.arms = generation.arms

    def get(
        self,
        ids: Sequence[str],
        *,
        vectors: bool = False,
        terms: bool = False,
        timeout: float | None = None,
    ) -> Mapping[str, StoredDocument]:
        """Stored documents by id."""
        generation, layout, deadline = self.generation, self._layout, Deadline(timeout)
        found = [
            self._connection.call(f"read {generation.name}", "query", deadline=deadline, **request)
            for request in plan_get(generation, layout, ids, vectors=vectors, terms=terms)
        ]
        return read_documents(generation, layout, found, vectors=vectors, terms=terms)

    def count(self) -> int:
        """Number of documents, the newest too."""
        rows = self._connection.call(
            f"count {self.generation.name}",
            "query",
            self.generation.name,
            "",
            output_fields=["count(*)"],
            consistency_level="Strong",
        )
        return int(rows[0]["count(*)"])

    def export(self) -> EncodedDocuments:
        """Everything that is stored, ``sparse`` as impacts: what exact search needs."""
        generation, layout = self.generation, self._layout
        self.count()  # waits until the newest is seen
        columns = [*layout.readable, *filter(None, (layout.dense, layout.sparse))]
        size = max(20, min(1000, _EXPORT_NUMBERS // max(1, generation.dims)))
        documents, dense, sparse = [], [], []
        nothing = (np.zeros(0, np.int32), np.zeros(0, np.float32))
        try:
            with quiet():
                pages = self._connection.client.query_iterator(
                    generation.name, batch_size=size, output_fields=columns
                )
                while rows := pages.next():
                    for row in rows:
                        stored = stored_document(
                            row, generation, layout, vectors=False, terms=False
                        )
                        documents.append(stored.document)
                        if layout.dense:
                            dense.append(row_vector(row, layout))
                        sparse.append(
                            row_impacts(row, generation, layout) if layout.sparse else nothing
                        )
                pages.close()
        except Exception as error:  # pymilvus raises many kinds, gRPC's own among them
            where = self._connection.where
            raise engine_error(error, f"export {generation.name}", where, None) from None
        vectors = np.zeros((len(documents), generation.dims), dtype=np.float32)
        if dense:
            vectors[:] = dense
        rows_of_terms = SparseVectors.from_rows(sparse, generation.vocabulary_size)
        return EncodedDocuments(documents, vectors, rows_of_terms)


class DenseArm:
    """Inner products: by HNSW on a server, exact in Lite."""

    def __init__(self, connection: Connection, generation: Generation, layout: Layout) -> None:
        self._connection, self._generation, self._layout = connection, generation, layout

    def search(
        self,
        queries: DenseVectors,
        k: int,
        *,
        filter: Filter | None = None,
        offset: int = 0,
        timeout: float | None = None,
    ) -> list[Candidates]:
        """See ``Arm.search``."""
        plan = plan_dense(self._generation, self._layout, queries, k, filter, offset)
        return _search(self._connection, self._generation, plan, timeout)


class SparseArm:
    """Exact sums of query weight times impact."""

    def __init__(self, connection: Connection, generation: Generation, layout: Layout) -> None:
        self._connection, self._generation, self._layout = connection, generation, layout

    def search(
        self,
        queries: SparseVectors,
        k: int,
        *,
        filter: Filter | None = None,
        offset: int = 0,
        timeout: float | None = None,
    ) -> list[Candidates]:
        """See ``Arm.search``."""
        plan = plan_sparse(self._generation, self._layout, queries, k, filter, offset)
        return _search(self._connection, self._generation, plan, timeout)


def _search(
    connection: Connection, generation: Generation, plan: SearchPlan, timeout: float | None
) -> list[Candidates]:
    action, deadline = f"search {generation.name}", Deadline(timeout)
    return plan.answers(
        [
            connection.call(action, "search", deadline=deadline, **request)
            for request in plan.requests
        ]
    )
