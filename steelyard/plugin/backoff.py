"""Waiting before a request is tried again: exponential, with full jitter."""

from __future__ import annotations

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
        wait: how to wait, given the seconds; asynchronous connections have their own.
    """

    attempts: int = 7
    base: float = 0.25
    cap: float = 15.0
    wait: Callable[[float], None] = time.sleep

    def waits(self) -> Iterator[float]:
        """Seconds to wait before each attempt after the first."""
        for attempt in range(self.attempts - 1):
            yield bounded(self.longest(attempt + 1), None)

    def __iter__(self) -> Iterator[bool]:
        """One item an attempt, True if it is the last; waits between them."""
        return self.within(lambda: None)

    def within(self, left: Callable[[], float | None]) -> Iterator[bool]:
        """As iteration, but no wait is longer than the seconds ``left``; None is no limit."""
        for attempt in range(self.attempts):
            if attempt:
                self.wait(bounded(self.longest(attempt), left()))
            yield attempt == self.attempts - 1

    def longest(self, attempt: int) -> float:
        """Seconds that the wait before an attempt may take, counted from 0."""
        return min(self.cap, self.base * 2.0 ** (attempt - 1))


def bounded(longest: float, left: float | None) -> float:
    """A random wait of at most ``longest`` seconds, and of at most those ``left``."""
    chosen = random.uniform(0, longest)  # noqa: S311
    return chosen if left is None else min(chosen, left)


ONCE = Backoff(attempts=1)
"""For the first request: a wrong address should fail at once."""
