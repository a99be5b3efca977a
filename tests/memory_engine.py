"""An engine in memory that can be told to fail: for faults that a real one cannot be made to show.

Its arms are the exact ones of ``ExactIndex``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

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
    def __init__(self, name: str, arm: Callable[[], Any], faults: Faults) -> None:
        self._name, self._arm, self._faults = name, arm, faults

    def search(self, queries: Any, k: int, **more: Any) -> Any:
        self._faults.meet(self._name)
        return self._arm().search(queries, k, **more)


class MemoryIndex:
    """Reads what the engine holds at each call."""

    def __init__(self, generation: Generation, engine: MemoryEngine) -> None:
        self.generation, self._engine = generation, engine
        self.arms = generation.arms
        faults = engine.faults
        self.dense: Arm[DenseVectors] = _Arm("dense", lambda: self._index.dense, faults)
        self.sparse: Arm[SparseVectors] = _Arm("sparse", lambda: self._index.sparse, faults)
        self.match: Arm[Sequence[str]] = self._index.match

    @property
    def _index(self) -> ExactIndex:
        return self._engine.held(self.generation.name)

    def get(self, ids: Sequence[str], **more: Any) -> Mapping[str, StoredDocument]:
        self._engine.faults.meet("get")
        return self._index.get([i for i in ids if i not in self._engine.deleted], **more)

    def find(self, **wanted: Any) -> list[str]:
        return self._index.find(**wanted)

    def count(self) -> int:
        return self._index.count()

    def export(self) -> EncodedDocuments:
        return self._index.export()


Row = tuple[Document, Any, Any]


class MemoryEngine:
    """Generations in a dictionary."""

    def __init__(self, alias: str = "demo") -> None:
        self.alias = alias
        self.faults = Faults()
        self.deleted: set[str] = set()
        self.broken: set[str] = set()
        self._generations: dict[str, Generation] = {}
        self._rows: dict[str, dict[str, Row]] = {}
        self._held: dict[str, ExactIndex] = {}
        self._published: str | None = None

    def add(self, content: EncodedDocuments, queries: QueryEncoder, **changes: Any) -> Generation:
        """A generation of a pack's space with these documents, published."""
        metadata = queries.metadata
        generation = Generation(
            f"demo_2026010100{len(self._generations):04d}_00000000",
            metadata.spaces.dense,
            metadata.spaces.sparse,
            metadata.pack_id,
            "content",
            queries.dims,
            queries.vocabulary_size,
            100.0,
        )
        generation = replace(generation, **changes)
        self.create(generation)
        self.upsert(generation, content)
        self.publish(generation)
        return generation

    def held(self, name: str) -> ExactIndex:
        """A generation as it is now."""
        if name not in self._held:
            generation, rows = self._generations[name], list(self._rows[name].values())
            dense = np.array([row[1] for row in rows], np.float32).reshape(-1, generation.dims)
            impacts = SparseVectors.from_rows([r[2] for r in rows], generation.vocabulary_size)
            content = EncodedDocuments([row[0] for row in rows], dense, impacts)
            self._held[name] = ExactIndex(generation, content)
        return self._held[name]

    def resolve(self) -> Generation | None:
        self.faults.meet("resolve")
        return None if self._published is None else self._generations[self._published]

    def generations(self) -> list[Generation]:
        return [self._generations[name] for name in sorted(self._generations, reverse=True)]

    def open(self, generation: Generation, vocabulary: Vocabulary | None = None) -> MemoryIndex:
        if generation.name in self.broken:
            raise EngineError(f"{generation.name} cannot be opened")
        return MemoryIndex(self._generations[generation.name], self)

    def create(self, generation: Generation) -> None:
        self._generations[generation.name] = generation
        self._rows[generation.name] = {}

    def upsert(
        self, generation: Generation, batch: EncodedDocuments, *, report_refused: bool = False
    ) -> UpsertReport:
        self.faults.meet("upsert")
        impacts, clipped = quantise(batch.sparse, generation.scale)
        for row, document in enumerate(batch.documents):
            made = (document, batch.dense[row], impacts.row(row))
            self._rows[generation.name][document.id] = made
        self._held.pop(generation.name, None)
        return UpsertReport(clipped)

    def delete(self, generation: Generation, ids: Sequence[str]) -> None:
        self.faults.meet("delete")
        for identifier in ids:
            self._rows[generation.name].pop(identifier, None)
        self._held.pop(generation.name, None)

    def seal(self, generation: Generation) -> None:
        self.faults.meet("seal")

    def publish(self, generation: Generation) -> None:
        self._published = generation.name

    def drop(self, generation: Generation) -> None:
        del self._generations[generation.name], self._rows[generation.name]
        self._held.pop(generation.name, None)

    def close(self) -> None:
        pass


def encoded(queries: QueryEncoder, documents: Sequence[Document]) -> EncodedDocuments:
    """Documents encoded as if they were queries."""
    texts = [document.content for document in documents]
    vectors = queries.encode_query(texts)
    return EncodedDocuments(documents, vectors.dense, vectors.sparse)
