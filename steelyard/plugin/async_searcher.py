"""The searcher for event loops: the same plan, asked by the engines' asynchronous clients."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import EngineError, InputError
from steelyard.plugin.abilities import AsyncSearchIndex, OpensAsync
from steelyard.plugin.deadline import Deadline
from steelyard.plugin.engine import Engine
from steelyard.plugin.filters import Filter
from steelyard.plugin.packs import OnePack, Packs, open_packs
from steelyard.plugin.search.answer import Answer
from steelyard.plugin.search.arm_threads import ArmThreads
from steelyard.plugin.search.current import RESOLVE_SECONDS, Current, CurrentGeneration
from steelyard.plugin.search.drive import drive_async
from steelyard.plugin.search.recency import Recency
from steelyard.plugin.search.request import Request, SearchSettings, answer_plan
from steelyard.plugin.search.threaded import ThreadedIndex
from steelyard.plugin.searcher import check_abilities, set_text_match
from steelyard.plugin.text_match import TextMatch
from steelyard.plugin.urls import open_engine

_THREADS = 16


class AsyncSearcher:
    """Hybrid search over one index, for many tasks of one event loop.

    Engines without an asynchronous client are asked in threads. The alias is read in a thread,
    at most every 5 seconds.

    Args:
        queries: as for ``Searcher``.
        engine: where the documents are.
        resolve_every, text_match, settings: as for ``Searcher``.
    """

    def __init__(
        self,
        queries: QueryEncoder | Packs,
        engine: Engine,
        *,
        resolve_every: float = RESOLVE_SECONDS,
        text_match: TextMatch | None = None,
        **settings: Any,
    ) -> None:
        self.engine = engine
        unknown = sorted(set(settings) - {field.name for field in fields(SearchSettings)})
        if unknown:
            raise InputError(f"no search setting {unknown[0]!r}", "see SearchSettings")
        self.settings = SearchSettings(**settings)
        set_text_match(engine, text_match)
        packs = OnePack(queries) if isinstance(queries, QueryEncoder) else queries
        self._threads = ArmThreads()
        self._pool = ThreadPoolExecutor(_THREADS, "steelyard-tasks")
        self._current = CurrentGeneration(engine, packs, self._threads, resolve_every)
        self._opened: tuple[Current, AsyncSearchIndex] | None = None
        self._opening: tuple[Current, asyncio.Task[AsyncSearchIndex]] | None = None

    @classmethod
    async def open(cls, pack: str | Path, url: str, **settings: Any) -> AsyncSearcher:
        """As ``Searcher.open``."""
        packs = await asyncio.to_thread(open_packs, pack)
        vocabulary = packs.encoder.tokenizer if isinstance(packs, OnePack) else None
        engine = await asyncio.to_thread(open_engine, url, must_exist=True, vocabulary=vocabulary)
        try:
            searcher = cls(packs, engine, **settings)
        except BaseException:
            engine.close()
            raise
        try:
            await searcher._index(await searcher._now(Deadline(None)), Deadline(None))
        except BaseException:
            await searcher.close()
            raise
        return searcher

    async def __aenter__(self) -> AsyncSearcher:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Release threads and the engine."""
        self._threads.close(wait=False)
        self._pool.shutdown(wait=False, cancel_futures=True)
        if isinstance(self.engine, OpensAsync):
            await self.engine.close_async()
        await asyncio.to_thread(self.engine.close)

    async def search(
        self,
        text: str,
        k: int = 10,
        *,
        offset: int = 0,
        filter: Filter | None = None,
        feedback: int = 0,
        instruction: str | None = None,
        recency: Recency | None = None,
        documents: bool = True,
        highlight: bool = False,
        explain: bool = False,
        group_by_parent: bool = False,
    ) -> Answer:
        """As ``Searcher.search``."""
        started = time.perf_counter()
        deadline = Deadline(self.settings.deadline)
        request = Request(
            text, k, offset, filter, feedback, instruction, recency, documents, highlight, explain,
            group_by_parent,
        )  # fmt: skip
        current = await self._now(deadline)
        answer, error = None, None
        try:
            answer = await self._answer(request, current, deadline, started)
        except EngineError as failed:
            error = failed
        if answer is not None and not answer.missing:
            return answer
        # The generation may have been dropped since the alias was read.
        fresh = await asyncio.to_thread(self._current.newer_than, current, deadline)
        if fresh is not None:
            return await self._answer(request, fresh, deadline, started)
        if answer is None:
            raise error or AssertionError
        return answer

    async def _answer(
        self, request: Request, current: Current, deadline: Deadline, started: float
    ) -> Answer:
        current, index = await self._index(current, deadline)
        check_abilities(index, request, self.settings)
        plan = answer_plan(request, self.settings, current, index, started)
        return await drive_async(plan, index, deadline)

    async def _now(self, deadline: Deadline) -> Current:
        if self._current.fresh:
            return self._current.get(deadline)
        return await asyncio.to_thread(self._current.get, deadline)

    async def _index(
        self, current: Current, deadline: Deadline
    ) -> tuple[Current, AsyncSearchIndex]:
        """The generation opened in this loop, once for all tasks.

        While it cannot be opened, or not in time, the one that is open goes on.
        """
        opened = self._opened
        if opened is not None and opened[0].index is current.index:
            return current, opened[1]
        if self._opening is None or self._opening[0].index is not current.index:
            self._opening = (current, asyncio.ensure_future(self._open(current)))
        opening = self._opening[1]
        try:
            index = await asyncio.wait_for(asyncio.shield(opening), deadline.left(0.5))
        except (EngineError, asyncio.TimeoutError) as error:
            if opening.done():
                self._opening = None
            late = isinstance(error, asyncio.TimeoutError)
            why = deadline.missed(f"opening {current.generation.name}") if late else error
            if opened is None:
                raise why from None
            return replace(opened[0], behind=str(why)), opened[1]
        self._opened, self._opening = (current, index), None
        return current, index

    async def _open(self, current: Current) -> AsyncSearchIndex:
        if isinstance(self.engine, OpensAsync):
            vocabulary = current.queries.tokenizer
            return await self.engine.open_async(current.generation, vocabulary)
        return ThreadedIndex(current.index, self._pool)
