"""A moment by which something must be done, its retries and their waits included."""

from __future__ import annotations

import time

from steelyard.errors import EngineError


class Deadline:
    """Counts down from its making.

    Args:
        seconds: until it is over; None is never.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self, share: float = 1.0) -> float | None:
        """Seconds that are left, or a share of them; never less than 0; None is no end."""
        return None if self._end is None else max(0.0, self._end - time.monotonic()) * share

    def within(self, limit: float) -> float:
        """Seconds that are left, at most ``limit``."""
        left = self.left()
        return limit if left is None else min(limit, left)

    def allows(self, wait: float) -> bool:
        """Whether there is time after waiting so long."""
        return self._end is None or time.monotonic() + wait < self._end

    def missed(self, what: str) -> EngineError:
        """The error of something that did not come in time."""
        return EngineError(
            f"{what} did not answer in time for a deadline of {self.seconds:g} s",
            "look at the engine, or allow a longer deadline",
        )
