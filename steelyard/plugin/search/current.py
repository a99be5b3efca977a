"""Which generation a searcher searches now, and when it looks for a newer one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace

from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import EngineError, PackError, SteelyardError
from steelyard.plugin.deadline import Deadline
from steelyard.plugin.engine import Engine, Generation, SearchIndex
from steelyard.plugin.packs import Packs
from steelyard.plugin.search.drive import Threads

RESOLVE_SECONDS = 5.0
"""A searcher asks for the alias's generation at most this often, unless a search fails."""

_log = logging.getLogger("steelyard.search")


@dataclass(frozen=True, slots=True)
class Current:
    """One generation and the encoder of its queries: they change together.

    Attributes:
        generation, index, queries: as opened.
        behind: why a newer generation is not searched; empty when this is the newest.
    """

    generation: Generation
    index: SearchIndex
    queries: QueryEncoder
    behind: str = ""


class CurrentGeneration:
    """Resolves one alias, for many threads.

    The alias is read in a thread of the pool: a search with a deadline never waits longer for an
    engine that hangs, and goes on with the generation it knows.

    Args:
        engine: whose alias.
        packs: where encoders come from.
        threads: where the alias is read.
        every: seconds for which what was read holds, unless a search fails.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        engine: Engine,
        packs: Packs,
        threads: Threads,
        every: float = RESOLVE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._packs, self._threads = engine, packs, threads
        self._every, self._clock = every, clock
        self._current: Current | None = None
        self._resolved_at = 0.0
        self._lock = threading.Lock()
        self._reading: Future[Current] | None = None

    @property
    def fresh(self) -> bool:
        """Whether ``get`` has its answer at once."""
        known = self._current is not None
        return known and self._clock() - self._resolved_at <= self._every

    def get(self, deadline: Deadline) -> Current:
        """The generation to search now.

        Raises:
            EngineError: there is none, or it was never reached.
            PackError: there is no pack for it, and no older generation is open.
        """
        current = self._current
        if current is None:
            return self._read(deadline, 1.0)
        if self._clock() - self._resolved_at <= self._every:
            return current
        try:
            return self._read(deadline, 0.5)
        except EngineError as error:
            if self._engine_has_none(error):
                raise
            _log.warning("%s cannot be resolved, searching %s: %s",
                         self._engine.alias, current.generation.name, error)  # fmt: skip
            return replace(self._current or current, behind=str(error))

    def newer_than(self, current: Current, deadline: Deadline) -> Current | None:
        """After a failed search: the generation to search instead; None if it is the same."""
        try:
            fresh = self._read(deadline, 0.5)
        except SteelyardError:
            return None
        return None if fresh.generation.name == current.generation.name else fresh

    def _read(self, deadline: Deadline, share: float) -> Current:
        """Read the alias, or join the thread that does."""
        with self._lock:
            if self._reading is None or self._reading.done():
                self._reading = self._threads.submit("alias", self._resolve)
            reading = self._reading
        wait([reading], deadline.left(share))
        if not reading.done():
            self._resolved_at = self._clock()  # it goes on; until then, searches do not wait
            raise deadline.missed(f"the alias {self._engine.alias!r}")
        return reading.result()

    def _resolve(self) -> Current:
        try:
            generation = self._engine.resolve()
        finally:
            self._resolved_at = self._clock()
        if generation is None:
            raise _NoIndexError(
                f"no index {self._engine.alias!r} in this engine",
                "make one with 'steelyard index'",
            )
        known = self._current
        if known is not None and known.generation == generation and not known.behind:
            return known
        self._current = self._opened(generation, known)
        return self._current

    def _opened(self, generation: Generation, known: Current | None) -> Current:
        if generation.arms_elsewhere:
            raise EngineError(
                f"{generation.name} holds the {' and '.join(generation.arms)} arm; its "
                f"{' and '.join(generation.arms_elsewhere)} arm is in another engine",
                "name both: dense=URL,sparse=URL",
            )
        try:
            queries = self._packs.encoder_for(generation)
        except PackError as error:
            if known is None or known.generation.name == generation.name:
                raise
            _log.warning("searching %s still: %s", known.generation.name, error)
            return Current(known.generation, known.index, known.queries, str(error))
        index = self._engine.open(generation, queries.tokenizer)
        return Current(generation, index, queries)

    @staticmethod
    def _engine_has_none(error: EngineError) -> bool:
        return isinstance(error, _NoIndexError)


class _NoIndexError(EngineError):
    """The alias stands for nothing."""
