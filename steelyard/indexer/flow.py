"""Stages that run side by side and end together.

Each stage is a thread. What goes from one to the next waits in a channel that holds a few items,
so a fast stage waits for a slow one. A stage that fails stops the flow: the others are woken from
whatever channel they wait at, and raise ``StoppedError``.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from steelyard.errors import SteelyardError

T = TypeVar("T")

_POLL = 0.2
"""Seconds after which the main thread looks for a signal."""


class StoppedError(SteelyardError):
    """Another stage failed, or the user wants to stop."""


class Flow:
    """Stages, and what stops them.

    Attributes:
        cause: why the flow was stopped; None while it runs.
        ending: no new work is begun, what is open is finished.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self.cause: BaseException | None = None
        self.ending = False

    def start(self, name: str, stage: Callable[[], None]) -> None:
        """Run a stage in a thread of its own."""

        def run() -> None:
            try:
                stage()
            except StoppedError:
                pass
            except BaseException as error:  # told by join()
                self.stop(error)
            finally:
                with self._changed:
                    self._running -= 1
                    self._changed.notify_all()

        with self._changed:
            self._running += 1
        # A daemon: a stage that hangs in a foreign library must not keep the process.
        threading.Thread(target=run, name=f"steelyard-{name}", daemon=True).start()

    def stop(self, cause: BaseException) -> None:
        """End all stages as soon as they look up; the first cause counts."""
        with self._changed:
            self.cause = self.cause or cause
            self.ending = True
            self._changed.notify_all()

    def call(self, stage: Callable[[], None]) -> None:
        """Do something here and now; it stops the flow when it fails."""
        try:
            stage()
        except Exception as error:
            self.stop(error)

    def finish(self) -> None:
        """Begin no new work."""
        with self._changed:
            self.ending = True
            self._changed.notify_all()

    def check(self) -> None:
        """Raise ``StoppedError`` when the flow is stopped."""
        if self.cause is not None:
            raise StoppedError("the job was stopped")

    def until(self, ready: Callable[[], bool]) -> None:
        """Wait until something is so that a stage changes by ``change``."""
        with self._changed:
            self._changed.wait_for(lambda: self.cause is not None or ready())
        self.check()

    def change(self, change: Callable[[], None]) -> None:
        """Change what others wait for."""
        with self._changed:
            change()
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Sleep, but no longer than the flow runs."""
        with self._changed:
            self._changed.wait_for(lambda: self.cause is not None, seconds)
        self.check()

    def join(self, wanted: Callable[[], BaseException | None], grace: float) -> None:
        """Wait until all stages have ended, and raise what stopped them.

        Args:
            wanted: asked now and then whether the user wants to stop, and with what error.
            grace: seconds that stages have to end once the flow is stopped.
        """
        stopped_at: float | None = None
        while True:
            if self.cause is None and (reason := wanted()) is not None:
                self.stop(reason)
            with self._changed:
                if not self._running:
                    break
                if self.cause is not None:
                    stopped_at = stopped_at or time.monotonic()
                    if time.monotonic() - stopped_at > grace:
                        break
                self._changed.wait(_POLL)
        if self.cause is not None:
            raise self.cause


class Channel(Generic[T]):
    """What waits between two stages.

    Args:
        flow: of both.
        capacity: items that may wait.
    """

    def __init__(self, flow: Flow, capacity: int = 1) -> None:
        self._flow, self._capacity = flow, capacity
        self._items: deque[T] = deque()
        self._closed = False

    def __len__(self) -> int:
        """Items that wait."""
        return len(self._items)

    def put(self, item: T) -> None:
        """Add an item; waits while the channel is full."""
        self._flow.until(lambda: len(self._items) < self._capacity)
        self._flow.change(lambda: self._items.append(item))

    def close(self) -> None:
        """Nothing more comes."""

        def change() -> None:
            self._closed = True

        self._flow.change(change)

    def __iter__(self) -> Iterator[T]:
        """Items in order, for one reader; ends when the channel is closed and empty."""
        while True:
            self._flow.until(lambda: bool(self._items) or self._closed)
            if not self._items:
                return
            item: list[T] = []
            self._flow.change(lambda taken=item: taken.append(self._items.popleft()))  # type: ignore[misc]
            yield item.pop()
