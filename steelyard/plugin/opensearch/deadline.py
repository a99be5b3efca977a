"""Seconds that a whole call may take, its retries and their waits too."""

from __future__ import annotations

import time


class Deadline:
    """Runs from when it is made.

    Args:
        seconds: None is no deadline.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self, limit: float) -> float:
        """Seconds left, at most ``limit``; 0 or less when it is over."""
        return limit if self._end is None else min(limit, self._end - time.monotonic())

    def allows(self, wait: float) -> bool:
        """Whether there is time after waiting so long."""
        return self._end is None or time.monotonic() + wait < self._end
