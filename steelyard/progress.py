"""How long work reports that it goes on, without knowing who is watching."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Progress(Protocol):
    """Told of every stage of a job; the command line draws bars from it."""

    def stage(
        self, name: str, total: int | None = None
    ) -> AbstractContextManager[Callable[[int], None]]:
        """Open a stage of ``total`` units; call what it gives with the units just done."""

    def say(self, text: str) -> None:
        """One line worth knowing."""


class SilentProgress:
    """Nobody is watching."""

    @contextmanager
    def stage(
        self,
        name: str,  # noqa: ARG002
        total: int | None = None,  # noqa: ARG002
    ) -> Iterator[Callable[[int], None]]:
        """A stage that shows nothing."""
        yield lambda _: None

    def say(self, text: str) -> None:
        """Drop the line."""
