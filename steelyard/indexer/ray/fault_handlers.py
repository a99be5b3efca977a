"""The process's own handlers of faults, kept while Ray comes and goes.

Ray puts its handlers in place when it starts and takes them away when it ends, and whoever was
there before is gone. A Java machine in the same process (Lucene) lives on such faults: it stops
its threads by them, and without its handler the next stop ends the process.
"""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Iterator
from contextlib import contextmanager

FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT)

_SPACE = 512
"""Bytes, more than any system's ``struct sigaction``."""


@contextmanager
def kept_fault_handlers() -> Iterator[None]:
    """What handles faults before the block handles them after it."""
    before = {number: _action(number) for number in FAULTS}
    try:
        yield
    finally:
        for number, action in before.items():
            ctypes.CDLL(None).sigaction(int(number), action, None)


def fault_handler(number: signal.Signals) -> bytes:
    """Address of what handles a fault now; only to be compared."""
    return _action(number).raw[: ctypes.sizeof(ctypes.c_void_p)]


def _action(number: signal.Signals) -> ctypes.Array[ctypes.c_char]:
    """The system's description of it."""
    action = ctypes.create_string_buffer(_SPACE)
    ctypes.CDLL(None).sigaction(int(number), None, action)
    return action
