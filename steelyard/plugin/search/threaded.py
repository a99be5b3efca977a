"""An open index awaited: its calls run in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Generic, TypeVar

from steelyard.plugin.abilities import AsyncArm
from steelyard.plugin.engine import (
    Arm,
    Candidates,
    Generation,
    Queries,
    SearchIndex,
    StoredDocument,
)
from steelyard.plugin.filters import Filter
from steelyard.types import DenseVectors, SparseVectors

T = TypeVar("T")


class ThreadedIndex:
    """``AsyncSearchIndex`` over a ``SearchIndex``.

    Args:
        index: to ask.
        threads: where.
    """

    def __init__(self, index: SearchIndex, threads: ThreadPoolExecutor) -> None:
        self._index, self._threads = index, threads
        self.dense: AsyncArm[DenseVectors] = _ThreadedArm(index.dense, threads)
        self.sparse: AsyncArm[SparseVectors] = _ThreadedArm(index.sparse, threads)
        self.match: AsyncArm[Sequence[str]] = _ThreadedArm(index.match, threads)

    @property
    def generation(self) -> Generation:
        """Which one."""
        return self._index.generation

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms that can be searched."""
        return self._index.arms

    async def get(
        self,
        ids: Sequence[str],
        *,
        vectors: bool = False,
        terms: bool = False,
        timeout: float | None = None,
    ) -> Mapping[str, StoredDocument]:
        """See ``SearchIndex.get``."""
        call = partial(self._index.get, ids, vectors=vectors, terms=terms, timeout=timeout)
        return await _in_thread(self._threads, call)


class _ThreadedArm(Generic[Queries]):
    def __init__(self, arm: Arm[Queries], threads: ThreadPoolExecutor) -> None:
        self._arm: Arm[Queries] = arm
        self._threads = threads

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
        call: Callable[[], list[Candidates]] = partial(
            self._arm.search, queries, k, filter=filter, offset=offset, timeout=timeout
        )
        return await _in_thread(self._threads, call)


async def _in_thread(threads: ThreadPoolExecutor, call: Callable[[], T]) -> T:
    loop: Any = asyncio.get_running_loop()
    result: T = await loop.run_in_executor(threads, call)
    return result
