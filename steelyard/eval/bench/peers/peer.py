"""What a contender is: how it is laid out on disk, opened, and asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # a contender's own process imports nothing that the contender does not need
    from steelyard.types import DenseVectors, SparseVectors

TOKEN_IDS, DENSE, SPARSE, BOTH, DOCUMENTS = "token ids", "dense", "sparse", "both", "documents"
"""What a contender's answer is."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all contenders of a run share.

    Attributes:
        pack: the query pack's folder.
        corpus: BEIR folder or file: what BM25 searches.
        llm: causal language model of the contender ``llm``.
        precision: of full models, as in ``open_dense_encoder``.
    """

    pack: str
    corpus: str
    llm: str
    precision: str = "auto"


def nothing() -> None:
    """For contenders that remember nothing."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A contender, ready.

    Attributes:
        one: answers a single query, as its user would ask.
        many: answers a batch.
        dense: vectors ``[n, d]`` of a batch, for comparison; None where there are none.
        sparse: the same of sparse vectors.
        keep: keeps what it remembers now and returns what sets it back to that.
        forget: runs right before the clock starts.
        facts: what a reader should know of these queries, such as the share of known words.
    """

    one: Callable[[str], object]
    many: Callable[[Sequence[str]], object]
    dense: Callable[[Sequence[str]], DenseVectors] | None = None
    sparse: Callable[[Sequence[str]], SparseVectors] | None = None
    keep: Callable[[], Callable[[], None]] = lambda: nothing
    forget: Callable[[], None] = nothing
    facts: Callable[[Sequence[str]], dict[str, float]] | None = None


class Peer(Protocol):
    """One contender; making it imports nothing."""

    @property
    def name(self) -> str:
        """For ``--only``."""

    @property
    def title(self) -> str:
        """For tables."""

    @property
    def gives(self) -> str:
        """``TOKEN_IDS``, ``DENSE``, ``SPARSE``, ``BOTH`` or ``DOCUMENTS``."""

    @property
    def install(self) -> str:
        """The line that installs it."""

    @property
    def most(self) -> int | None:
        """So many queries are timed at most; None for the quick ones."""

    def prepare(self, setting: Setting, folder: Path) -> int:
        """Write what it opens into an empty folder; returns the bytes it reads from disk."""

    def open(self, setting: Setting, folder: Path) -> Opened:
        """Import its library and load it."""


def bytes_of(folder: Path) -> int:
    """Size of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
