"""Two halves of a look-up at the same time: Python cuts texts, a second thread multiplies.

The product of counts and table does not hold the interpreter's lock. What does is handed over on
purpose: a thread that asks for the lock while another computes would wait for 5 ms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from queue import SimpleQueue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")


def side_by_side(items: Iterable[T], work: Callable[[T], None]) -> None:
    """Work on each item in a second thread while the next one is made in this one.

    Args:
        items: made as they are asked for.
        work: mostly without the interpreter's lock.

    Raises:
        BaseException: what either of them raised first; nothing goes on after it.
    """
    waiting: SimpleQueue[T | None] = SimpleQueue()
    taken = Event()
    failures: list[BaseException] = []

    def worker() -> None:
        try:
            while (item := waiting.get()) is not None:
                taken.set()
                work(item)
        except BaseException as failure:
            failures.append(failure)
            taken.set()

    thread = Thread(target=worker, name="steelyard-look-up", daemon=True)
    thread.start()
    try:
        for item in items:
            taken.clear()
            waiting.put(item)
            taken.wait()
            if failures:
                break
    finally:
        waiting.put(None)
        thread.join()
    if failures:
        raise failures[0]
