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
            yield random.uniform(0, min(self.cap, self.base * 2**attempt))  # noqa: S311

    def __iter__(self) -> Iterator[bool]:
        """One item an attempt, True if it is the last; waits between them."""
        yield self.attempts == 1
        for number, seconds in enumerate(self.waits(), start=2):
            self.wait(seconds)
            yield number == self.attempts


ONCE = Backoff(attempts=1)
"""For the first request: a wrong address should fail at once."""
