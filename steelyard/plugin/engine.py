"""What a search engine is to Steelyard: generations behind an alias, and arms to search.

Writing goes through ``Engine`` (create, upsert, publish), reading through ``SearchIndex`` (one
generation, opened). The two are apart because a reader never needs to know how it was written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.pack.json_fields import read_dataclass
from steelyard.errors import EngineError, PackError
from steelyard.plugin.filters import Filter
from steelyard.types import DenseVectors, Document, EncodedDocuments, SparseVectors


@dataclass(frozen=True, slots=True)
class Candidates:
    """One arm's answer to one query, best first.

    Ties stand in order of id; which of the documents tied at the very end of the list are in it
    is the engine's choice.

    Attributes:
        ids: document ids.
        scores: float64 ``[len(ids)]``, inner products.
    """

    ids: list[str]
    scores: NDArray[np.float64]


NO_CANDIDATES = Candidates([], np.zeros(0))


def best_first(ids: Sequence[str], scores: NDArray[np.float64], k: int) -> Candidates:
    """The k best by score, ties by id, from pairs in any order."""
    if len(ids) > k:
        threshold = np.partition(scores, len(ids) - k)[len(ids) - k]
        keep = np.flatnonzero(scores >= threshold).tolist()
        ids, scores = [ids[i] for i in keep], scores[keep]
    order = sorted(range(len(ids)), key=lambda i: (-scores[i], ids[i]))[:k]
    return Candidates([ids[i] for i in order], scores[order])


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """What an engine gives back of a document; ``dense`` only when it was asked for."""

    document: Document
    dense: DenseVectors | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """One build of an index. Stored with it, in the engine.

    Attributes:
        name: physical name, ``<alias>_<utc time>_<short hash>``.
        dense_space, sparse_space: what its vectors depend on; searchers compare them.
        pack_id: the pack it was made with (provenance).
        content: hash of the shards it was loaded from.
        dims: length of a dense vector.
        vocabulary_size: columns of a sparse vector.
        scale: impacts are floor(scale x weight).
        fields: declared metadata fields and their types.
    """

    name: str
    dense_space: str
    sparse_space: str
    pack_id: str
    content: str
    dims: int
    vocabulary_size: int
    scale: float
    fields: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """What is stored in the engine."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, where: str) -> Generation:
        """Read what ``to_json`` stored.

        Raises:
            EngineError: the index was not written by Steelyard.
        """
        try:
            return read_dataclass(cls, json.loads(text), where)
        except (ValueError, PackError) as error:
            raise EngineError(
                f"{where} does not carry Steelyard's description: {error}",
                "index the corpus again with 'steelyard index'",
            ) from error


QueryVectors = TypeVar("QueryVectors", DenseVectors, SparseVectors, contravariant=True)


class Arm(Protocol[QueryVectors]):
    """One way of scoring documents: by dense or by sparse vectors."""

    def search(
        self,
        queries: QueryVectors,
        k: int,
        *,
        filter: Filter | None = None,
        offset: int = 0,
    ) -> list[Candidates]:
        """Ranks ``offset + 1`` to ``offset + k`` for each of n queries.

        A query without a vector (a zero or empty row) has no candidates.
        """


class SearchIndex(Protocol):
    """One generation, open for reading."""

    @property
    def generation(self) -> Generation:
        """Which one."""

    @property
    def dense(self) -> Arm[DenseVectors]:
        """The dense arm."""

    @property
    def sparse(self) -> Arm[SparseVectors]:
        """The sparse arm."""

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> Mapping[str, StoredDocument]:
        """Stored documents by id, with their dense vectors if asked; unknown ids are left out."""

    def count(self) -> int:
        """Number of documents."""

    def export(self) -> EncodedDocuments:
        """Everything that is stored, ``sparse`` as impacts."""


class Engine(Protocol):
    """A place that holds generations of one index under one alias."""

    @property
    def alias(self) -> str:
        """The name that users search."""

    def resolve(self) -> Generation | None:
        """The generation that the alias stands for; None when there is none."""

    def generations(self) -> list[Generation]:
        """All generations of this alias, newest first."""

    def create(self, generation: Generation) -> None:
        """Make an empty generation; nobody sees it yet."""

    def upsert(self, generation: Generation, batch: EncodedDocuments) -> int:
        """Write whole documents; one of the same id is replaced.

        Returns:
            How many sparse weights were clipped to the largest impact.
        """

    def delete(self, generation: Generation, ids: Sequence[str]) -> None:
        """Remove documents by id; unknown ids are no error."""

    def seal(self, generation: Generation) -> None:
        """Everything upserted is durable and searchable when this returns."""

    def publish(self, generation: Generation) -> None:
        """Point the alias to this generation: the commit point of a re-index."""

    def drop(self, generation: Generation) -> None:
        """Remove a generation that the alias does not stand for."""

    def open(self, generation: Generation) -> SearchIndex:
        """A generation for reading."""

    def close(self) -> None:
        """Let go of connections and files."""
