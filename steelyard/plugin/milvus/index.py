"""One generation in Milvus, open for reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic

import numpy as np

from steelyard.plugin.abilities import check_find
from steelyard.plugin.deadline import Deadline
from steelyard.plugin.engine import (
    DENSE,
    MATCH,
    SPARSE,
    AbsentArm,
    Arm,
    Candidates,
    Generation,
    Queries,
    StoredDocument,
)
from steelyard.plugin.filters import Filter
from steelyard.plugin.milvus.connection import Connection
from steelyard.plugin.milvus.errors import engine_error, quiet
from steelyard.plugin.milvus.layout import Layout
from steelyard.plugin.milvus.requests import (
    PlanArm,
    find_expressions,
    plan_dense,
    plan_find,
    plan_get,
    plan_sparse,
    read_documents,
)
from steelyard.plugin.milvus.rows import row_impacts, row_vector, stored_document
from steelyard.plugin.milvus_rest import MAX_WINDOW
from steelyard.types import DenseVectors, EncodedDocuments, SparseVectors

_EXPORT_NUMBERS = 500_000


class MilvusIndex:
    """One collection, open for reading."""

    def __init__(self, connection: Connection, generation: Generation, layout: Layout) -> None:
        self._connection, self._layout = connection, layout
        self.generation = generation
        name = generation.name
        self.dense: Arm[DenseVectors] = (
            MilvusArm(connection, generation, layout, plan_dense)
            if layout.dense
            else AbsentArm(DENSE, name)
        )
        self.sparse: Arm[SparseVectors] = (
            MilvusArm(connection, generation, layout, plan_sparse)
            if layout.sparse
            else AbsentArm(SPARSE, name)
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

    def find(
        self,
        *,
        parents: Sequence[str] | None = None,
        filter: Filter | None = None,
        timeout: float | None = None,
    ) -> list[str]:
        """Ids by parent and filter, the newest too: see ``FindsIds``."""
        check_find(parents, filter)
        generation, layout, deadline = self.generation, self._layout, Deadline(timeout)
        found: set[str] = set()
        for expression in find_expressions(layout, parents, filter, generation.name):
            after: str | None = None
            while True:
                request = plan_find(generation, layout, expression, after)
                rows = self._connection.call(
                    f"find documents of {generation.name}", "query", deadline=deadline, **request
                )
                found.update(str(row[layout.key]) for row in rows)
                if len(rows) < MAX_WINDOW:
                    break
                after = str(rows[-1][layout.key])
        return sorted(found)

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


class MilvusArm(Generic[Queries]):
    """One arm: dense by HNSW on a server and exact in Lite, sparse exact."""

    def __init__(
        self,
        connection: Connection,
        generation: Generation,
        layout: Layout,
        plan: PlanArm[Queries],
    ) -> None:
        self._connection, self._generation, self._layout = connection, generation, layout
        self._plan: PlanArm[Queries] = plan

    def search(
        self,
        queries: Queries,
        k: int,
        *,
        filter: Filter | None = None,
        offset: int = 0,
        timeout: float | None = None,
    ) -> list[Candidates]:
        """See ``Arm.search``."""
        plan = self._plan(self._generation, self._layout, queries, k, filter, offset)
        action, deadline = f"search {self._generation.name}", Deadline(timeout)
        return plan.answers(
            [
                self._connection.call(action, "search", deadline=deadline, **request)
                for request in plan.requests
            ]
        )
