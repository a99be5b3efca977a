"""Training pairs from a corpus's own text: no labels, no queries, no downloads.

The corpus is read as a stream; what is held is hashes of what was seen. Papers that train on such
pairs: ``kinds``. Near duplicates among documents would be each other's false negatives, so only
the first gives pairs; a query that a second document also gives is dropped for the same reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from steelyard.errors import InputError
from steelyard.indexer.reading.validation import ReadDocument, Rejection
from steelyard.training.data.kinds import KINDS, pairs_of
from steelyard.training.data.near_duplicates import THRESHOLD, SeenTexts
from steelyard.training.data.triples import TrainingExample

MAX_SHOWN = 20
"""Rejections that are kept, of any number."""


@dataclass(frozen=True, slots=True)
class PairSettings:
    """What is made.

    Attributes:
        kinds: of ``KINDS``, in the order that a document's pairs have.
        seed: of every draw, 0 or more.
        near: similarity from which texts are near duplicates, over 0; over 1 drops exact ones
            only.

    Raises:
        InputError: a setting out of its range.
    """

    kinds: tuple[str, ...] = KINDS
    seed: int = 0
    near: float = THRESHOLD

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or len(set(self.kinds)) != len(self.kinds):
            shown = ",".join(self.kinds)
            raise InputError(f"kinds of pairs {shown!r}", f"each once, of {', '.join(KINDS)}")
        if self.seed < 0 or not self.near > 0:
            raise InputError(
                f"seed {self.seed} and near {self.near}", "seed is 0 or more, near is over 0"
            )


@dataclass(slots=True)
class PairCounts:
    """What became of a corpus.

    Attributes:
        documents: read, rejected ones not among them.
        rejected: records that are no documents.
        first_rejected: the first of them, at most 20.
        duplicate_documents: ``exact`` and ``near`` ones; they give no pairs.
        duplicate_queries: ``exact`` and ``near`` ones; their pairs are dropped.
        pairs: kept, by kind.
    """

    documents: int = 0
    rejected: int = 0
    first_rejected: list[Rejection] = field(default_factory=list)
    duplicate_documents: dict[str, int] = field(default_factory=dict)
    duplicate_queries: dict[str, int] = field(default_factory=dict)
    pairs: dict[str, int] = field(default_factory=dict)


def make_pairs(
    reads: Iterable[ReadDocument | Rejection], settings: PairSettings, counts: PairCounts
) -> Iterator[TrainingExample]:
    """Pairs without negatives, in the order of the corpus.

    Args:
        reads: of ``documents_of``.
        settings: what is made.
        counts: added to while pairs are taken.
    """
    documents, queries = SeenTexts(3, settings.near), SeenTexts(1, settings.near)
    for read in reads:
        if isinstance(read, Rejection):
            counts.rejected += 1
            if len(counts.first_rejected) < MAX_SHOWN:
                counts.first_rejected.append(read)
            continue
        counts.documents += 1
        if again := documents.add(read.document.content):
            _add(counts.duplicate_documents, again)
            continue
        for pair in pairs_of(read.document, settings.kinds, settings.seed):
            if again := queries.add(pair.query):
                _add(counts.duplicate_queries, again)
                continue
            _add(counts.pairs, pair.kind)
            yield pair


def _add(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1
