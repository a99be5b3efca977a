"""How long work reports that it goes on, without knowing who is watching.

Counters that watchers know, with their labels; others are shown as they are:

- ``documents``, ``stage=read|encoded|reused|rejected|indexed|refused``. ``reused``: encoded by an
  earlier run. ``indexed`` and ``refused``: by an engine, also ``sink``. ``rejected`` and
  ``refused``: also ``reason``.
- ``passages``, ``stage=encoded``: what is stored for the encoded documents, if they were split.
- ``retries``, ``sink``: requests that were sent again.
- ``clipped_weights``, ``sink``: sparse weights cut to the largest impact.
- ``bytes``, ``stage=read|written``: of the corpus, and of shards.

Facts that watchers know: ``shards`` (the folder; say it when the folder is locked), and of each
``sink``: ``alias``, ``generation``, ``count`` (the engine's own, at the end).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol


class Progress(Protocol):
    """Told of every stage of a job; the command line draws bars from it. Safe in threads."""

    def stage(
        self, name: str, total: int | None = None
    ) -> AbstractContextManager[Callable[[int], None]]:
        """Open a stage of ``total`` units; call what it gives with the units just done."""

    def say(self, text: str) -> None:
        """One line worth knowing."""

    def count(self, name: str, n: int = 1, **labels: str) -> None:
        """Add to a counter; one for each set of labels."""

    def fact(self, name: str, value: str | int, **labels: str) -> None:
        """One thing that is known now; the last one said under a name and labels counts."""


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

    def count(self, name: str, n: int = 1, **labels: str) -> None:
        """Count nothing."""

    def fact(self, name: str, value: str | int, **labels: str) -> None:
        """Forget it."""


class ManyProgress:
    """Several who watch the same work.

    Args:
        watching: told in this order.
    """

    def __init__(self, *watching: Progress) -> None:
        self._watching = watching

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """The same stage for each."""
        with ExitStack() as stack:
            advances = [stack.enter_context(one.stage(name, total)) for one in self._watching]

            def advance(count: int) -> None:
                for each in advances:
                    each(count)

            yield advance

    def say(self, text: str) -> None:
        """To each."""
        for one in self._watching:
            one.say(text)

    def count(self, name: str, n: int = 1, **labels: str) -> None:
        """At each."""
        for one in self._watching:
            one.count(name, n, **labels)

    def fact(self, name: str, value: str | int, **labels: str) -> None:
        """To each."""
        for one in self._watching:
            one.fact(name, value, **labels)
