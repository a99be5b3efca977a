"""Two halves of one piece of work, at the same time."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Final


class TwoHalves:
    """Runs the second half on a standing thread, if that has nothing else to do.

    For work in which NumPy or SciPy lets go of the interpreter's lock. The thread starts with the
    first work and ends with this object. Safe to use from many threads and after a fork: where
    the thread is taken or gone, the caller does both halves; so it does where there is one
    processor, or ``OMP_NUM_THREADS`` is 1.
    """

    def __init__(self) -> None:
        told = os.environ.get("OMP_NUM_THREADS")
        self._alone: Final = told == "1" or (os.cpu_count() or 1) < 2
        self._free = Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0

    def run(self, first: Callable[[], None], second: Callable[[], None]) -> None:
        """Both; an exception of either is raised when neither runs any more."""
        if self._alone or not self._free.acquire(blocking=False):
            first()
            second()
            return
        try:
            beside = self._start(second)
            try:
                first()
            finally:
                if beside is None:
                    second()
                else:
                    beside.result()
        finally:
            self._free.release()

    def _start(self, work: Callable[[], None]) -> Future[None] | None:
        """The work on the thread; None: no thread can be had, as when Python ends."""
        if self._pool is None or self._process != os.getpid():  # threads do not survive a fork
            self._pool = ThreadPoolExecutor(1, "steelyard-look-up")
            self._process = os.getpid()
        try:
            return self._pool.submit(work)
        except RuntimeError:
            self._pool = None  # with what it has queued: it must not run later
            return None
