"""Ctrl-C and SIGTERM: the first asks a job to stop where it can go on later, the second kills."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from steelyard.errors import InterruptedJobError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """What was asked for.

    Attributes:
        received: number of the first signal; None while there was none.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def wanted(self) -> InterruptedJobError | None:
        """The error to stop with."""
        return None if self.received is None else InterruptedJobError(self.received)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """A signal came."""
        del frame
        if self.received is not None:
            os._exit(128 + number)  # everything on disk can be continued, as after kill -9
        self.received = number


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Inside, signals are noted instead of ending the process.

    Only in the main thread: elsewhere, and in a program that handles them itself, nothing changes.
    """
    signals = StopSignals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    ours = (signal.SIG_DFL, signal.default_int_handler)
    taken = [number for number in SIGNALS if before[number] in ours]
    for number in taken:
        signal.signal(number, signals.handle)
    try:
        yield signals
    finally:
        for number in taken:
            signal.signal(number, before[number])
