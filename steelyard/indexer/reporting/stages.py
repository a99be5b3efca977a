"""One stage of a job: how far it is, how fast, and how long it will take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

WINDOW_SECONDS = 60.0
"""The rate is that of the last minute: what was found done at the start soon counts no more."""

_SAMPLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class StageState:
    """A stage as it is at one moment.

    Attributes:
        name: what is done.
        done, total: units; total None is unknown.
        seconds: since it began, or that it took.
        rate: units a second over the last minute, of an ended stage over all of it; None at the
            very beginning.
        ended: it is over.
        failed: it was left by an error.
    """

    name: str
    done: int
    total: int | None
    seconds: float
    rate: float | None
    ended: bool
    failed: bool = False

    @property
    def eta_seconds(self) -> float | None:
        """Seconds to go at this rate; None when nobody knows."""
        if self.ended or self.total is None or not self.rate:
            return None
        return max(0, self.total - self.done) / self.rate


class Stage:
    """Takes the units done, from any thread.

    Args:
        name, total: as ``Progress.stage``.
        clock: seconds, monotonic.
    """

    def __init__(
        self, name: str, total: int | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name, self.total, self._clock = name, total, clock
        self._lock = Lock()
        self._done = 0
        self._began = clock()
        self._ended: float | None = None
        self._failed = False
        self._samples: deque[tuple[float, int]] = deque([(self._began, 0)])

    def advance(self, count: int) -> None:
        """So many more units are done."""
        with self._lock:
            self._done += count
            now = self._clock()
            if now - self._samples[-1][0] >= _SAMPLE_SECONDS:
                self._samples.append((now, self._done))
                self._forget(now)

    def end(self, *, failed: bool = False) -> None:
        """It is over."""
        with self._lock:
            self._ended, self._failed = self._clock(), failed

    def state(self) -> StageState:
        """As it is now."""
        with self._lock:
            now = self._clock() if self._ended is None else self._ended
            seconds = now - self._began
            if self._ended is None:
                self._forget(now)
                then, before = self._samples[0]
            else:
                then, before = self._began, 0
            elapsed = now - then
            rate = (self._done - before) / elapsed if elapsed >= _SAMPLE_SECONDS else None
            if self._ended is not None and rate is None and elapsed > 0:
                rate = self._done / elapsed
            return StageState(
                self.name,
                self._done,
                self.total,
                seconds,
                rate,
                self._ended is not None,
                self._failed,
            )

    def _forget(self, now: float) -> None:
        while len(self._samples) > 1 and self._samples[1][0] <= now - WINDOW_SECONDS:
            self._samples.popleft()
