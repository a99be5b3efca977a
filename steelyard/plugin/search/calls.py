"""Questions to an index as values, so that one plan serves threads and event loops alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from steelyard.plugin.filters import Filter
from steelyard.plugin.fusion import Fusion
from steelyard.types import DenseVectors, SparseVectors

STEP = 0.75
"""Of the time that is left, so much is for a question after which others come."""


class Call(Protocol):
    """One question."""

    @property
    def share(self) -> float:
        """Of the time that is left, so much may be waited for the answer."""

    @property
    def name(self) -> str:
        """What is asked, for messages: ``the dense arm``."""

    def on(self, index: Any, timeout: float | None) -> Any:
        """Ask a ``SearchIndex``: the answer; or an ``AsyncSearchIndex``: what to await."""


@dataclass(frozen=True, slots=True)
class SearchArm:
    """Ranks 1 to k of one arm, for each of n queries."""

    arm: str
    queries: DenseVectors | SparseVectors | Sequence[str]
    k: int
    filter: Filter | None = None
    share: float = STEP

    @property
    def name(self) -> str:
        """For messages."""
        return f"the {self.arm} arm"

    def on(self, index: Any, timeout: float | None) -> Any:
        """See ``Call``."""
        arm = getattr(index, self.arm)
        return arm.search(self.queries, self.k, filter=self.filter, timeout=timeout)


@dataclass(frozen=True, slots=True)
class SearchBoth:
    """Ranks 1 to k of both vector arms of one query, in one request."""

    dense: DenseVectors
    sparse: SparseVectors
    k: int
    filter: Filter | None = None
    share: float = STEP

    @property
    def name(self) -> str:
        """For messages."""
        return "the engine of both arms"

    def on(self, index: Any, timeout: float | None) -> Any:
        """See ``Call``."""
        return index.search_both(
            self.dense, self.sparse, self.k, filter=self.filter, timeout=timeout
        )


@dataclass(frozen=True, slots=True)
class SearchFused:
    """Ranks 1 to k of both arms as the engine itself joins them."""

    dense: DenseVectors
    sparse: SparseVectors
    fusion: Fusion
    candidates: int
    k: int
    filter: Filter | None = None
    share: float = STEP

    @property
    def name(self) -> str:
        """For messages."""
        return "the engine's own fusion"

    def on(self, index: Any, timeout: float | None) -> Any:
        """See ``Call``."""
        return index.hybrid(
            self.dense,
            self.sparse,
            self.fusion,
            self.candidates,
            self.k,
            filter=self.filter,
            timeout=timeout,
        )


@dataclass(frozen=True, slots=True)
class Fetch:
    """Stored documents by id."""

    ids: Sequence[str]
    vectors: bool = False
    terms: bool = False
    share: float = STEP

    @property
    def name(self) -> str:
        """For messages."""
        return "the stored documents"

    def on(self, index: Any, timeout: float | None) -> Any:
        """See ``Call``."""
        return index.get(self.ids, vectors=self.vectors, terms=self.terms, timeout=timeout)


@dataclass(frozen=True, slots=True)
class Highlight:
    """Fragments of documents with a text's words marked."""

    ids: Sequence[str]
    text: str
    share: float = 1.0

    @property
    def name(self) -> str:
        """For messages."""
        return "the highlights"

    def on(self, index: Any, timeout: float | None) -> Any:
        """See ``Call``."""
        return index.highlight(self.ids, self.text, timeout=timeout)
