"""Waiting before a request is tried again: exponential, with full jitter."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often and after how long.

    Attributes:
        attempts: the first one included.
        base: seconds that the first wait may take at most; each further one twice as long.
        cap: no wait is longer than so many seconds.
        patience: seconds to go on for, however many attempts that takes.
        wait: how to wait, given the seconds; asynchronous connections have their own.
    """

    attempts: int = 7
    base: float = 0.25
    cap: float = 15.0
    patience: float = 0.0
    wait: Callable[[float], None] = time.sleep

    def waits(self) -> Iterator[float]:
        """Seconds to wait before each attempt after the first."""
        started = time.monotonic()
        for attempt in itertools.count(1):
            if self._is_last(attempt - 1, started):
                return
            yield bounded(self.longest(attempt), None)

    def __iter__(self) -> Iterator[bool]:
        """One item an attempt, True if it is the last; waits between them."""
        return self.within(lambda: None)

    def within(self, left: Callable[[], float | None]) -> Iterator[bool]:
        """As iteration, but no wait is longer than the seconds ``left``; None is no limit."""
        started = time.monotonic()
        last = False
        for attempt in itertools.count():
            if last:
                return
            if attempt:
                self.wait(bounded(self.longest(attempt), left()))
            last = self._is_last(attempt, started)
            yield last

    def _is_last(self, attempt: int, started: float) -> bool:
        return attempt >= self.attempts - 1 and time.monotonic() - started >= self.patience

    def longest(self, attempt: int) -> float:
        """Seconds that the wait before an attempt may take, counted from 0."""
        return min(self.cap, self.base * 2.0 ** min(attempt - 1, 30))


def bounded(longest: float, left: float | None) -> float:
    """A random wait of at most ``longest`` seconds, and of at most those ``left``."""
    chosen = random.uniform(0, longest)  # noqa: S311
    return chosen if left is None else min(chosen, left)


ONCE = Backoff(attempts=1)
"""For the first request: a wrong address should fail at once."""
