"""The arms of an open index, for threads and for asyncio: how a call travels is all they add."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeAlias

from steelyard.plugin.engine import Candidates, Queries
from steelyard.plugin.filters import Filter
from steelyard.plugin.opensearch.async_connection import AsyncConnection
from steelyard.plugin.opensearch.connection import Connection
from steelyard.plugin.opensearch.requests import Steps

Call: TypeAlias = Callable[[Queries, int, int, Filter | None], Steps[list[Candidates]]]
"""Queries, k, offset and filter to candidates: a method of ``Searches``."""


class SyncArm(Generic[Queries]):
    """An arm, many queries a request."""

    def __init__(self, connection: Connection, call: Call[Queries]) -> None:
        self._connection = connection
        self._call: Call[Queries] = call

    def search(
        self,
        queries: Queries,
        k: int,
        *,
        filter: Filter | None = None,
        offset: int = 0,
        timeout: float | None = None,
    ) -> list[Candidates]:
        """See ``Arm.search``, and ``Searches`` for what may be raised."""
        return self._connection.run(self._call(queries, k, offset, filter), timeout)


class AsyncArm(Generic[Queries]):
    """``SyncArm``, awaited."""

    def __init__(self, connection: AsyncConnection, call: Call[Queries]) -> None:
        self._connection = connection
        self._call: Call[Queries] = call

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
        return await self._connection.run(self._call(queries, k, offset, filter), timeout)
