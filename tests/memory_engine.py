"""An engine in memory that can be told to fail: for faults that a real one cannot be made to show.

Its arms are the exact ones of ``ExactIndex``.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import EngineError
from steelyard.plugin.engine import Arm, Generation, StoredDocument, UpsertReport
from steelyard.plugin.exact import ExactIndex
from steelyard.plugin.quantise import quantise
from steelyard.plugin.vocabulary import Vocabulary
from steelyard.types import DenseVectors, Document, EncodedDocuments, SparseVectors


class Faults:
    """What goes wrong, by name of the arm, ``get`` or ``resolve``; shared by all generations.

    Attributes:
        failing: these raise.
        hanging: these wait until the event is set.
    """

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.hanging: dict[str, threading.Event] = {}
        self.calls: list[str] = []

    def meet(self, name: str) -> None:
        self.calls.append(name)
        if name in self.hanging:
            self.hanging[name].wait(60)
        if name in self.failing:
            raise EngineError(f"{name} is out of order", "repair it")


class _Arm:
    def __init__(self, name: str, arm: Any, faults: Faults) -> None:
        self._name, self._arm, self._faults = name, arm, faults

    def search(self, queries: Any, k: int, **more: Any) -> Any:
        self._faults.meet(self._name)
        return self._arm.search(queries, k, **more)


class MemoryIndex:
    def __init__(self, index: ExactIndex, engine: MemoryEngine) -> None:
        self.generation, self._index, self._engine = index.generation, index, engine
        self.arms = index.generation.arms
        self.dense: Arm[DenseVectors] = _Arm("dense", index.dense, engine.faults)
        self.sparse: Arm[SparseVectors] = _Arm("sparse", index.sparse, engine.faults)
        self.match: Arm[Sequence[str]] = index.match

    def get(self, ids: Sequence[str], **more: Any) -> Mapping[str, StoredDocument]:
        self._engine.faults.meet("get")
        return self._index.get([i for i in ids if i not in self._engine.deleted], **more)

    def count(self) -> int:
        return self._index.count()

    def export(self) -> EncodedDocuments:
        return self._index.export()


class MemoryEngine:
    """Generations in a dictionary."""

    def __init__(self, alias: str = "demo") -> None:
        self.alias = alias
        self.faults = Faults()
        self.deleted: set[str] = set()
        self.broken: set[str] = set()
        self._held: dict[str, ExactIndex] = {}
        self._published: str | None = None

    def add(self, content: EncodedDocuments, queries: QueryEncoder, **changes: Any) -> Generation:
        """A generation of a pack's space with these documents, published."""
        metadata = queries.metadata
        generation = Generation(
            f"demo_2026010100{len(self._held):04d}_00000000",
            metadata.spaces.dense,
            metadata.spaces.sparse,
            metadata.pack_id,
            "content",
            queries.dims,
            queries.vocabulary_size,
            100.0,
        )
        generation = replace(generation, **changes)
        impacts, _ = quantise(content.sparse, 100.0)
        self._held[generation.name] = ExactIndex(generation, replace(content, sparse=impacts))
        self._published = generation.name
        return generation

    def resolve(self) -> Generation | None:
        self.faults.meet("resolve")
        return None if self._published is None else self._held[self._published].generation

    def generations(self) -> list[Generation]:
        return [self._held[name].generation for name in sorted(self._held, reverse=True)]

    def open(self, generation: Generation, vocabulary: Vocabulary | None = None) -> MemoryIndex:
        if generation.name in self.broken:
            raise EngineError(f"{generation.name} cannot be opened")
        return MemoryIndex(self._held[generation.name], self)

    def create(self, generation: Generation) -> None:
        raise NotImplementedError

    def upsert(
        self, generation: Generation, batch: EncodedDocuments, *, report_refused: bool = False
    ) -> UpsertReport:
        raise NotImplementedError

    def delete(self, generation: Generation, ids: Sequence[str]) -> None:
        raise NotImplementedError

    def seal(self, generation: Generation) -> None:
        raise NotImplementedError

    def publish(self, generation: Generation) -> None:
        self._published = generation.name

    def drop(self, generation: Generation) -> None:
        del self._held[generation.name]

    def close(self) -> None:
        pass


def encoded(queries: QueryEncoder, documents: Sequence[Document]) -> EncodedDocuments:
    """Documents encoded as if they were queries."""
    texts = [document.content for document in documents]
    vectors = queries.encode_query(texts)
    return EncodedDocuments(documents, vectors.dense, vectors.sparse)
