"""Fair timing: contenders take turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence


def take_turns(contenders: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Median seconds of each over ``rounds``, one warm-up round not counted."""
    seconds: list[list[float]] = [[] for _ in contenders]
    for turn in range(rounds + 1):
        for which, contender in enumerate(contenders):
            started = time.perf_counter()
            contender()
            if turn:
                seconds[which].append(time.perf_counter() - started)
    return [statistics.median(values) for values in seconds]
