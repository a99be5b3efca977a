"""What some engines can do beyond ``Engine`` and ``SearchIndex``; asked for by ``isinstance``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, runtime_checkable

from steelyard.errors import EngineError, InputError
from steelyard.plugin.backoff import Backoff
from steelyard.plugin.engine import (
    AbsentArm,
    Candidates,
    Engine,
    Generation,
    Queries,
    SearchIndex,
    StoredDocument,
)
from steelyard.plugin.filters import Filter
from steelyard.plugin.fusion import Fusion
from steelyard.plugin.text_match import TextMatch
from steelyard.plugin.vocabulary import Vocabulary
from steelyard.types import DenseVectors, SparseVectors


@runtime_checkable
class Highlights(Protocol):
    """An index that shows where a text's words are in its documents."""

    def highlight(
        self, ids: Sequence[str], text: str, *, timeout: float | None = None
    ) -> Mapping[str, Mapping[str, Sequence[str]]]:
        """Fragments by id and field (``title``, ``text``), the words between <em> and </em>."""


@runtime_checkable
class MatchesText(Protocol):
    """An engine whose ``match`` arm can be set up; before an index is opened or created."""

    text_match: TextMatch


@runtime_checkable
class RetriesRequests(Protocol):
    """An engine that tries requests again; a bulk load is more patient than a query."""

    backoff: Backoff


@runtime_checkable
class HasHalves(Protocol):
    """An engine whose generations lie in two places; one of them may have been dropped."""

    def is_whole(self, generation: Generation) -> bool:
        """Whether both have their half."""


@runtime_checkable
class FusesArms(Protocol):
    """An index that joins both arms by itself, in one request."""

    def hybrid(
        self,
        dense: DenseVectors,
        sparse: SparseVectors,
        fusion: Fusion,
        candidates: int,
        k: int,
        *,
        filter: Filter | None = None,
        offset: int = 0,
        timeout: float | None = None,
    ) -> list[Candidates]:
        """Ranks ``offset + 1`` to ``offset + k`` by fused score, for each of n queries."""


@runtime_checkable
class SearchesBoth(Protocol):
    """An index that answers both vector arms in one request, which is one round trip less."""

    def search_both(
        self,
        dense: DenseVectors,
        sparse: SparseVectors,
        k: int,
        *,
        filter: Filter | None = None,
        timeout: float | None = None,
    ) -> Mapping[str, list[Candidates] | EngineError]:
        """Ranks 1 to k of one query by arm; of an arm that fails, its error."""


@runtime_checkable
class Adopts(Protocol):
    """An engine that can take over an index of vectors that someone else wrote."""

    def examine(self, generation: Generation) -> SearchIndex:
        """The index ``generation.name`` as ``adopt`` would take it; nothing is changed.

        Raises:
            EngineError: as ``adopt``.
        """

    def adopt(self, generation: Generation) -> Generation:
        """Stamp the existing index ``generation.name``; ``publish`` then points the alias to it.

        Args:
            generation: whose space the vectors are in; ``columns`` says where things are,
                ``dims`` 0 takes the index's own.

        Returns:
            What was stamped.

        Raises:
            EngineError: no such index, no such column, or another dimension; nothing is changed.
        """


@runtime_checkable
class FindsIds(Protocol):
    """An index that tells which documents belong together, or meet a condition."""

    def find(
        self,
        *,
        parents: Sequence[str] | None = None,
        filter: Filter | None = None,
        timeout: float | None = None,
    ) -> list[str]:
        """Ids of all documents that meet what is given, ascending, however many there are.

        Everything that was written before the call is seen.

        Args:
            parents: documents whose ``parent_id`` is one of these; a whole document's is its id.
            filter: condition on metadata.
            timeout: as in ``Arm.search``.

        Raises:
            InputError: neither is given, or a filter that cannot be.
        """


@runtime_checkable
class Refreshes(Protocol):
    """An engine that makes a live change searchable at a smaller cost than ``seal`` is."""

    def refresh(self, generation: Generation) -> None:
        """What was written to a generation so far is searchable when this returns."""


def make_searchable(engine: Engine, generation: Generation) -> None:
    """What was written to a generation so far is searchable when this returns."""
    if isinstance(engine, Refreshes):
        engine.refresh(generation)
    else:
        engine.seal(generation)


def check_find(parents: Sequence[str] | None, filter: Filter | None) -> None:
    """Refuse to find everything: it would be taken for a list of what to delete."""
    if parents is None and filter is None:
        raise InputError("neither parents nor a filter to find documents by", "give one of them")


class AsyncArm(Protocol[Queries]):
    """``Arm``, awaited."""

    async def search(
        self,
        queries: Queries,
        k: int,
        *,
        filter: Filter | None = None,
        offset: int = 0,
        timeout: float | None = None,
    ) -> list[Candidates]:
        """See ``Arm.search``."""


class AsyncAbsentArm(Generic[Queries]):
    """``AbsentArm``, awaited."""

    def __init__(self, arm: str, index: str) -> None:
        self._absent: AbsentArm[Queries] = AbsentArm(arm, index)

    async def search(
        self,
        queries: Queries,
        k: int,
        *,
        filter: Filter | None = None,
        offset: int = 0,
        timeout: float | None = None,
    ) -> list[Candidates]:
        """Always raises ``EngineError``."""
        return self._absent.search(queries, k, filter=filter, offset=offset, timeout=timeout)


class AsyncSearchIndex(Protocol):
    """``SearchIndex``, awaited: what a searcher asks on the way of a query."""

    @property
    def generation(self) -> Generation:
        """Which one."""

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms that can be searched."""

    @property
    def dense(self) -> AsyncArm[DenseVectors]:
        """The dense arm."""

    @property
    def sparse(self) -> AsyncArm[SparseVectors]:
        """The sparse arm."""

    @property
    def match(self) -> AsyncArm[Sequence[str]]:
        """The engine's own BM25 over title and text."""

    async def get(
        self,
        ids: Sequence[str],
        *,
        vectors: bool = False,
        terms: bool = False,
        timeout: float | None = None,
    ) -> Mapping[str, StoredDocument]:
        """See ``SearchIndex.get``."""


@runtime_checkable
class OpensAsync(Protocol):
    """An engine whose client has an asynchronous API of its own."""

    async def open_async(
        self, generation: Generation, vocabulary: Vocabulary | None = None
    ) -> AsyncSearchIndex:
        """As ``Engine.open``; connections are of the running event loop."""

    async def close_async(self) -> None:
        """Let go of what ``open_async`` opened in this loop."""
