"""One generation in OpenSearch, open for reading from one event loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from steelyard.errors import EngineError
from steelyard.plugin.abilities import AsyncAbsentArm, AsyncArm
from steelyard.plugin.engine import DENSE, MATCH, SPARSE, Candidates, StoredDocument
from steelyard.plugin.filters import Filter
from steelyard.plugin.fusion import Fusion
from steelyard.plugin.opensearch import arms, reading
from steelyard.plugin.opensearch.async_connection import AsyncConnection
from steelyard.plugin.opensearch.index import searchable
from steelyard.plugin.opensearch.searches import Searches
from steelyard.types import DenseVectors, SparseVectors


class AsyncOpenSearchIndex:
    """``OpenSearchIndex``, awaited: the same requests, the same answers."""

    def __init__(
        self, connection: AsyncConnection, target: Searches, version: tuple[int, int]
    ) -> None:
        self._connection, self._target, self._version = connection, target, version
        self.generation = target.generation
        self.arms = searchable(target)
        name = self.generation.name
        self.dense: AsyncArm[DenseVectors] = (
            arms.AsyncArm(connection, target.dense)
            if DENSE in self.arms
            else AsyncAbsentArm(DENSE, name)
        )
        self.sparse: AsyncArm[SparseVectors] = (
            arms.AsyncArm(connection, target.sparse)
            if SPARSE in self.arms
            else AsyncAbsentArm(SPARSE, name)
        )
        self.match: AsyncArm[Sequence[str]] = (
            arms.AsyncArm(connection, target.match)
            if MATCH in self.arms
            else AsyncAbsentArm(MATCH, name)
        )

    async def search_both(
        self,
        dense: DenseVectors,
        sparse: SparseVectors,
        k: int,
        *,
        filter: Filter | None = None,
        timeout: float | None = None,
    ) -> Mapping[str, list[Candidates] | EngineError]:
        """Both vector arms of one query in one request: see ``SearchesBoth``."""
        return await self._connection.run(self._target.both(dense, sparse, k, filter), timeout)

    async def hybrid(
        self,
        dense: DenseVectors,
        sparse: SparseVectors,
        fusion: Fusion,
        candidates: int,
        k: int,
        *,
        filter: Filter | None = None,
        offset: int = 0,
        timeout: float | None = None,
    ) -> list[Candidates]:
        """See ``OpenSearchIndex.hybrid``."""
        steps = self._target.hybrid(
            dense, sparse, fusion, candidates, k, offset, filter, self._version
        )
        return await self._connection.run(steps, timeout)

    async def get(
        self,
        ids: Sequence[str],
        *,
        vectors: bool = False,
        terms: bool = False,
        timeout: float | None = None,
    ) -> Mapping[str, StoredDocument]:
        """See ``OpenSearchIndex.get``."""
        steps = reading.get(self._target, ids, vectors=vectors, terms=terms)
        return await self._connection.run(steps, timeout)

    async def highlight(
        self, ids: Sequence[str], text: str, *, timeout: float | None = None
    ) -> Mapping[str, Mapping[str, Sequence[str]]]:
        """See ``OpenSearchIndex.highlight``."""
        return await self._connection.run(reading.highlight(self._target, ids, text), timeout)
