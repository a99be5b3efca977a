"""Entries of the log to one generation, in order.

Neighbouring upserts and deletes by id concern whole documents and nothing else, so of each
document the last one counts and they go together. Deletes by parent or by filter depend on what is
there, so everything before them is written first.
"""

from __future__ import annotations

from collections.abc import Callable

from steelyard.indexer.changes.encoder import ChangeEncoder
from steelyard.indexer.changes.log import Change, DeleteFilter, DeleteIds, DeleteParents, Upsert
from steelyard.indexer.changes.writing import Writer
from steelyard.plugin.engine import Engine, Generation
from steelyard.types import Document

TOGETHER = 512
"""Documents that are encoded and written together."""

TEXT_TOGETHER = 16_000_000
"""Characters of text that are."""


class Applier:
    """Applies changes to one generation.

    Args:
        engine: that holds it.
        generation: which.
        encoder: made when the first document is to be written.
        check: see ``Writer``.
    """

    def __init__(
        self,
        engine: Engine,
        generation: Generation,
        encoder: Callable[[], ChangeEncoder],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.writer = Writer(engine, generation, check)
        self.refused: dict[str, str] = {}
        self._generation, self._encoder = generation, encoder
        self._waiting: dict[str, Document | None] = {}
        self._text = 0

    def add(self, change: Change) -> None:
        """Apply a change, or let it wait for the next."""
        if isinstance(change, Upsert):
            self._wait_for(change.document.id, change.document)
        elif isinstance(change, DeleteIds):
            for identifier in change.ids:
                self._wait_for(identifier, None)
        else:
            self.flush()
            if isinstance(change, DeleteParents):
                self.writer.remove_found(parents=change.parents)
            elif isinstance(change, DeleteFilter):
                self.writer.remove_found(filter=change.filter)

    def flush(self) -> None:
        """Write what waits."""
        removed = [each for each, document in self._waiting.items() if document is None]
        documents = [document for document in self._waiting.values() if document is not None]
        if removed:
            self.writer.remove(removed)
        if documents:
            change = self._encoder().encode(documents, self._generation)
            ids = [document.id for document in documents]
            self.refused |= self.writer.put(ids, change)
        self._waiting, self._text = {}, 0

    def _wait_for(self, identifier: str, document: Document | None) -> None:
        self._waiting[identifier] = document
        self._text += 0 if document is None else len(document.content)
        if len(self._waiting) >= TOGETHER or self._text >= TEXT_TOGETHER:
            self.flush()
