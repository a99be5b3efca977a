"""Milvus servers, which have an asynchronous client too; a file has not."""

from __future__ import annotations

from typing import Any

from steelyard.errors import EngineError
from steelyard.plugin.engine import DENSE, Generation
from steelyard.plugin.milvus.adoption import comparable
from steelyard.plugin.milvus.async_index import AsyncClients, AsyncConnection, AsyncMilvusIndex
from steelyard.plugin.milvus.connection import Connection
from steelyard.plugin.milvus.engine import LONG_SECONDS, MilvusEngine
from steelyard.plugin.milvus.layout import Description, adopted_layout, own_layout
from steelyard.plugin.milvus.settings import Settings
from steelyard.plugin.vocabulary import Vocabulary


class MilvusServerEngine(MilvusEngine):
    """One alias in one server, which has an asynchronous client too."""

    def __init__(self, connection: Connection, alias: str, settings: Settings) -> None:
        super().__init__(connection, alias, lite=False)
        self._async = AsyncClients(settings, connection.backoff)

    async def open_async(
        self, generation: Generation, vocabulary: Vocabulary | None = None
    ) -> AsyncMilvusIndex:
        """As ``open``; the connection is of the running event loop."""
        del vocabulary
        connection = await self._async.of_this_loop()
        described = await connection.call(
            f"open {generation.name}", "describe_collection", generation.name
        )
        description = Description.of(described)
        if description.generation() != generation:
            raise EngineError(
                f"{generation.name} is another build than was asked for", "open the engine again"
            )
        await connection.call(
            f"load {generation.name}",
            "load_collection",
            generation.name,
            attempt_seconds=LONG_SECONDS,
        )
        layout = own_layout(generation, lite=False)
        if generation.columns:
            index = await self._dense_index_async(connection, generation)
            layout = adopted_layout(generation, description, index)
        return AsyncMilvusIndex(connection, generation, layout)

    async def _dense_index_async(
        self, connection: AsyncConnection, generation: Generation
    ) -> dict[str, Any]:
        name, column, action = (
            generation.name,
            generation.columns[DENSE],
            f"open {generation.name}",
        )
        names = await connection.call(action, "list_indexes", name, column)
        found = [await connection.call(action, "describe_index", name, each) for each in names[:1]]
        return comparable(generation, found)

    async def close_async(self) -> None:
        """Let go of what ``open_async`` opened in this loop."""
        await self._async.close()
