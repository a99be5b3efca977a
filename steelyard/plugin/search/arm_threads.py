"""Threads for the questions of a search, each kind its own: one that hangs blocks no other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

_EACH = 16


class ArmThreads:
    """At most 16 threads for each kind of question, made when they are needed."""

    def __init__(self) -> None:
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._lock = threading.Lock()

    def submit(self, kind: str, ask: Callable[..., T], *arguments: Any) -> Future[T]:
        """Ask in a thread of this kind.

        Args:
            kind: what is asked: an arm, the stored documents, the alias.
            ask: called with the arguments.
            arguments: for it.
        """
        pool = self._pools.get(kind)
        if pool is None:
            with self._lock:
                name = f"steelyard-{kind}"
                pool = self._pools.setdefault(kind, ThreadPoolExecutor(_EACH, name))
        return pool.submit(ask, *arguments)

    def close(self, *, wait: bool) -> None:
        """Take no more; what waits is dropped.

        Args:
            wait: until what runs has ended.
        """
        for pool in self._pools.values():
            pool.shutdown(wait=wait, cancel_futures=True)
