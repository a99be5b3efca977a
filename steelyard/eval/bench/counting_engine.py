"""An engine that counts what it is given and keeps nothing: the job alone, without a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from steelyard.errors import EngineError
from steelyard.plugin.batch_check import check_batch
from steelyard.plugin.engine import Generation, UpsertReport
from steelyard.plugin.quantise import quantise
from steelyard.plugin.vocabulary import Vocabulary
from steelyard.types import EncodedDocuments


class CountingEngine:
    """One alias, of one process; nothing can be searched."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self._counts: dict[str, int] = {}
        self._made: dict[str, Generation] = {}
        self._published: str | None = None

    def resolve(self) -> Generation | None:
        """The published generation."""
        return None if self._published is None else self._made[self._published]

    def generations(self) -> list[Generation]:
        """All, newest first."""
        return [self._made[name] for name in sorted(self._made, reverse=True)]

    def create(self, generation: Generation) -> None:
        """An empty one."""
        self._made[generation.name], self._counts[generation.name] = generation, 0

    def upsert(
        self, generation: Generation, batch: EncodedDocuments, *, report_refused: bool = False
    ) -> UpsertReport:
        """Check, quantise and count; a document sent twice counts twice."""
        del report_refused
        check_batch(generation, batch)
        _, clipped = quantise(batch.sparse, generation.scale)
        self._counts[generation.name] += len(batch)
        return UpsertReport(clipped)

    def delete(self, generation: Generation, ids: Sequence[str]) -> None:
        """Nothing is kept, so nothing is deleted."""

    def seal(self, generation: Generation) -> None:
        """Nothing to do."""

    def publish(self, generation: Generation) -> None:
        """It is what the alias stands for."""
        self._published = generation.name

    def drop(self, generation: Generation) -> None:
        """Forget its count."""
        del self._made[generation.name], self._counts[generation.name]

    def open(self, generation: Generation, vocabulary: Vocabulary | None = None) -> _CountingIndex:
        """For its count."""
        del vocabulary
        return _CountingIndex(replace(generation, arms=()), self._counts[generation.name])

    def close(self) -> None:
        """Nothing is open."""


class _CountingIndex:
    """Says that it has every document, and no arm to look for it in."""

    def __init__(self, generation: Generation, documents: int) -> None:
        self.generation, self._documents = generation, documents

    def count(self) -> int:
        """Documents that were sent."""
        return self._documents

    def get(self, ids: Sequence[str], **wanted: object) -> dict[str, None]:
        """All of them, without content."""
        del wanted
        return dict.fromkeys(ids)

    def __getattr__(self, name: str) -> object:
        raise EngineError(f"documents were only counted: there is no {name}")
