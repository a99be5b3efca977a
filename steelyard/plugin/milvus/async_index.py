"""Reading a server by pymilvus's asynchronous client."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Generic
from weakref import WeakKeyDictionary

from steelyard.errors import needs_extra
from steelyard.plugin.abilities import AsyncAbsentArm, AsyncArm
from steelyard.plugin.backoff import Backoff, bounded
from steelyard.plugin.deadline import Deadline
from steelyard.plugin.engine import (
    DENSE,
    MATCH,
    SPARSE,
    Candidates,
    Generation,
    Queries,
    StoredDocument,
)
from steelyard.plugin.filters import Filter
from steelyard.plugin.milvus.connection import client_options
from steelyard.plugin.milvus.errors import engine_error, may_pass, quiet, too_slow
from steelyard.plugin.milvus.layout import Layout
from steelyard.plugin.milvus.requests import (
    PlanArm,
    plan_dense,
    plan_get,
    plan_sparse,
    read_documents,
)
from steelyard.plugin.milvus.settings import Settings
from steelyard.types import DenseVectors, SparseVectors


class AsyncConnection:
    """``Connection``, awaited; of one event loop."""

    def __init__(self, client: Any, settings: Settings, backoff: Backoff) -> None:
        self._client, self._settings, self._backoff = client, settings, backoff

    async def call(
        self,
        action: str,
        method: str,
        *arguments: Any,
        deadline: Deadline | None = None,
        attempt_seconds: float | None = None,
        **named: Any,
    ) -> Any:
        """See ``Connection.call``."""
        deadline = deadline or Deadline(None)
        seconds = attempt_seconds or self._settings.timeout
        work = self._attempts(action, method, arguments, named, deadline, seconds)
        try:
            return await asyncio.wait_for(work, deadline.left())
        except asyncio.TimeoutError:
            raise too_slow(action, self._settings.where, deadline.seconds) from None

    async def _attempts(
        self,
        action: str,
        method: str,
        arguments: tuple[Any, ...],
        named: dict[str, Any],
        deadline: Deadline,
        attempt_seconds: float,
    ) -> Any:
        where = self._settings.where
        for attempt in range(self._backoff.attempts):
            if attempt:
                longest = self._backoff.longest(attempt)
                await asyncio.sleep(bounded(longest, deadline.left()))
            left = deadline.left()
            if left == 0:
                raise too_slow(action, where, deadline.seconds)
            seconds = attempt_seconds if left is None else left
            try:
                with quiet():
                    return await getattr(self._client, method)(
                        *arguments, **named, timeout=seconds, retry_on_rate_limit=False
                    )
            except Exception as error:  # pymilvus raises many kinds, gRPC's own among them
                if attempt == self._backoff.attempts - 1 or not may_pass(error):
                    told = deadline.seconds or seconds
                    raise engine_error(error, action, where, told) from None
        raise AssertionError("Backoff.attempts is at least 1")

    async def close(self) -> None:
        """Let go of the connection."""
        with quiet():
            await self._client.close()


class AsyncClients:
    """A connection for each event loop that asks."""

    def __init__(self, settings: Settings, backoff: Backoff) -> None:
        self._settings, self._backoff = settings, backoff
        self._open: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncConnection] = (
            WeakKeyDictionary()
        )

    async def of_this_loop(self) -> AsyncConnection:
        """The running loop's, made now if there is none."""
        loop = asyncio.get_running_loop()
        if loop not in self._open:
            with needs_extra("milvus"):
                from pymilvus import AsyncMilvusClient
            client = AsyncMilvusClient(**client_options(self._settings))
            self._open[loop] = AsyncConnection(client, self._settings, self._backoff)
        return self._open[loop]

    async def close(self) -> None:
        """The running loop's."""
        connection = self._open.pop(asyncio.get_running_loop(), None)
        if connection is not None:
            await connection.close()


class AsyncMilvusIndex:
    """``MilvusIndex``, awaited."""

    def __init__(
        self, connection: AsyncConnection, generation: Generation, layout: Layout
    ) -> None:
        self._connection, self._layout = connection, layout
        self.generation = generation
        self.arms = generation.arms
        name = generation.name
        self.dense: AsyncArm[DenseVectors] = (
            AsyncMilvusArm(connection, generation, layout, plan_dense)
            if layout.dense
            else AsyncAbsentArm(DENSE, name)
        )
        self.sparse: AsyncArm[SparseVectors] = (
            AsyncMilvusArm(connection, generation, layout, plan_sparse)
            if layout.sparse
            else AsyncAbsentArm(SPARSE, name)
        )
        self.match: AsyncArm[Sequence[str]] = AsyncAbsentArm(MATCH, name)

    async def get(
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
            await self._connection.call(
                f"read {generation.name}", "query", deadline=deadline, **request
            )
            for request in plan_get(generation, layout, ids, vectors=vectors, terms=terms)
        ]
        return read_documents(generation, layout, found, vectors=vectors, terms=terms)


class AsyncMilvusArm(Generic[Queries]):
    """``MilvusArm``, awaited."""

    def __init__(
        self,
        connection: AsyncConnection,
        generation: Generation,
        layout: Layout,
        plan: PlanArm[Queries],
    ) -> None:
        self._connection, self._generation, self._layout = connection, generation, layout
        self._plan: PlanArm[Queries] = plan

    async def search(
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
                await self._connection.call(action, "search", deadline=deadline, **request)
                for request in plan.requests
            ]
        )
