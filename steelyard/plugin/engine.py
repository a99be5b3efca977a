"""What a search engine is to Steelyard: generations behind an alias, and arms to search.

Writing goes through ``Engine`` (create, upsert, publish), reading through ``SearchIndex`` (one
generation, opened). The two are apart because a reader never needs to know how it was written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.pack.json_fields import read_dataclass
from steelyard.errors import EngineError, PackError
from steelyard.plugin.filters import Filter
from steelyard.plugin.vocabulary import Vocabulary
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


DENSE, SPARSE, MATCH = "dense", "sparse", "match"
"""The arms: by dense vectors, by sparse vectors, and by the engine's own BM25 over the texts."""

VECTOR_ARMS = (DENSE, SPARSE)
"""The arms whose vectors Steelyard makes."""

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
    """What an engine gives back of a document.

    Attributes:
        document: texts and metadata.
        dense: float32 ``[d]``; only when vectors were asked for.
        impacts: token ids (int32, ascending) and impacts (float32); only when terms were.
    """

    document: Document
    dense: DenseVectors | None = None
    impacts: tuple[NDArray[np.int32], NDArray[np.float32]] | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A document that an engine itself does not take.

    Attributes:
        id: of the document.
        reason: the engine's.
    """

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class UpsertReport:
    """What became of a batch.

    Attributes:
        clipped: sparse weights cut to the largest impact.
        refused: documents that are not in the generation; the others of the batch are.
    """

    clipped: int = 0
    refused: tuple[Refused, ...] = ()


@dataclass(frozen=True, slots=True)
class Generation:
    """One build of an index. Stored with it, in the engine.

    Attributes:
        name: physical name, ``<alias>_<utc time>_<short hash>``; of an adopted index, its own.
        dense_space, sparse_space: what its vectors depend on; searchers compare them.
        pack_id: the pack it was made with (provenance).
        content: hash of the shards it was loaded from.
        dims: length of a dense vector.
        vocabulary_size: columns of a sparse vector.
        scale: impacts are floor(scale x weight).
        fields: declared metadata fields and their types.
        arms: the arms whose vectors are stored here.
        arms_elsewhere: the arms that are in another engine, under the same physical name.
        columns: of an adopted index: what it calls our fields (``id``, ``title``, ``text``,
            ``dense``, and the declared metadata fields); ours where it is silent.
        passages: how long documents were split, tokens/overlap as in ``256/32``; empty: not.
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
    arms: tuple[str, ...] = VECTOR_ARMS
    arms_elsewhere: tuple[str, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)
    passages: str = ""

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


def generation_names(alias: str) -> re.Pattern[str]:
    """What the generations of an alias are called: ``<alias>_<utc time>_<short hash>``."""
    return re.compile(re.escape(alias) + r"_\d{14}_[0-9a-f]{8}")


Queries = TypeVar("Queries", DenseVectors, SparseVectors, Sequence[str], contravariant=True)


class Arm(Protocol[Queries]):
    """One way of scoring documents: by dense vectors, by sparse vectors, by the text itself."""

    def search(
        self,
        queries: Queries,
        k: int,
        *,
        filter: Filter | None = None,
        offset: int = 0,
        timeout: float | None = None,
    ) -> list[Candidates]:
        """Ranks ``offset + 1`` to ``offset + k`` for each of n queries.

        A query without a vector (a zero or empty row, a blank text) has no candidates.

        Args:
            queries: n of them.
            k, offset: which ranks.
            filter: condition on metadata, applied inside the search.
            timeout: seconds for everything, retries too; None is the engine's own limit.

        Raises:
            EngineError: the engine refuses, cannot be reached, or is too slow.
        """


class AbsentArm(Generic[Queries]):
    """Stands where an index has no such arm: searching it is an error that says so."""

    def __init__(self, arm: str, index: str) -> None:
        self._arm, self._index = arm, index

    def search(
        self,
        queries: Queries,
        k: int,
        *,
        filter: Filter | None = None,
        offset: int = 0,
        timeout: float | None = None,
    ) -> list[Candidates]:
        """Always raises ``EngineError``."""
        del queries, k, filter, offset, timeout
        raise EngineError(
            f"{self._index} has no {self._arm} arm", "choose arms that this index has"
        )


class SearchIndex(Protocol):
    """One generation, open for reading; safe to use from many threads."""

    @property
    def generation(self) -> Generation:
        """Which one."""

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms that can be searched; the others are ``AbsentArm``."""

    @property
    def dense(self) -> Arm[DenseVectors]:
        """The dense arm."""

    @property
    def sparse(self) -> Arm[SparseVectors]:
        """The sparse arm."""

    @property
    def match(self) -> Arm[Sequence[str]]:
        """The engine's own BM25 over title and text."""

    def get(
        self,
        ids: Sequence[str],
        *,
        vectors: bool = False,
        terms: bool = False,
        timeout: float | None = None,
    ) -> Mapping[str, StoredDocument]:
        """Stored documents by id; unknown ids are left out.

        Args:
            ids: any number.
            vectors: with the dense vectors.
            terms: with the impacts.
            timeout: as in ``Arm.search``.
        """

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

    def upsert(
        self, generation: Generation, batch: EncodedDocuments, *, report_refused: bool = False
    ) -> UpsertReport:
        """Write whole documents; one of the same id is replaced.

        Args:
            generation: where to.
            batch: what.
            report_refused: documents that the engine does not take are in the report, and the
                others are written; otherwise they are an error.

        Raises:
            EngineError: the engine failed, or refuses documents and ``report_refused`` is False.
        """

    def delete(self, generation: Generation, ids: Sequence[str]) -> None:
        """Remove documents by id; unknown ids are no error."""

    def seal(self, generation: Generation) -> None:
        """Everything upserted is durable and searchable when this returns."""

    def publish(self, generation: Generation) -> None:
        """Point the alias to this generation: the commit point of a re-index."""

    def drop(self, generation: Generation) -> None:
        """Remove a generation that the alias does not stand for."""

    def open(self, generation: Generation, vocabulary: Vocabulary | None = None) -> SearchIndex:
        """A generation for reading.

        Args:
            generation: as ``resolve`` or ``generations`` gave it.
            vocabulary: of the pack that it is searched with; None is the engine's own.
        """

    def close(self) -> None:
        """Let go of connections and files."""
