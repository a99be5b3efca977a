"""Hard negatives: documents that rank high for a query and do not answer it.

The best ``depth`` documents of a ranker, less the positives, less false negatives: those that
score too near the positive, or above it. What is too near is positive-aware, as in NV-Retriever
(Moreira et al., 2024, arXiv 2407.15831): its TopK-PercPos (a share of the positive's score; 95 %
is its best) and TopK-MarginPos (an absolute margin below it). Of what is left the hardest are
taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import islice

import numpy as np

from steelyard.errors import InputError
from steelyard.training.data.candidates import CandidateSearch, Ranked
from steelyard.training.data.triples import Passage, TrainingExample
from steelyard.types import Document

PER_QUERY = 7
DEPTH = 100
RATIO = 0.95
_AT_ONCE = 1024
_DRAWS = 20


@dataclass(frozen=True, slots=True)
class MiningSettings:
    """How negatives are chosen.

    Attributes:
        per_query: how many an example gets; LightRetriever has 7.
        depth: ranks that are looked at.
        ratio: a candidate that scores ``ratio`` times its positive or more is a false negative.
            None: no such limit.
        margin: so is one that scores the positive less ``margin`` or more.
        fill: put random documents where mining finds too few.
        seed: of these.

    Raises:
        InputError: a setting out of its range.
    """

    per_query: int = PER_QUERY
    depth: int = DEPTH
    ratio: float | None = RATIO
    margin: float = 0.0
    fill: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.per_query < 1 or self.depth < self.per_query or self.seed < 0:
            raise InputError(
                f"{self.per_query} negatives of {self.depth} candidates, seed {self.seed}",
                "at least 1 negative, no more than candidates; the seed is 0 or more",
            )
        if (self.ratio is not None and not 0 < self.ratio <= 1) or not self.margin >= 0:
            raise InputError(
                f"ratio {self.ratio} and margin {self.margin}",
                "the ratio is over 0, at most 1; the margin is 0 or more",
            )

    def limit(self, positive: float) -> float:
        """The score from which a candidate is a false negative.

        Of a positive with a score below 0 the ratio counts downward, too.
        """
        limits = [positive - self.margin]
        if self.ratio is not None:
            limits.append(positive - (1 - self.ratio) * abs(positive))
        return min(limits)


@dataclass(slots=True)
class MiningCounts:
    """What mining saw.

    Attributes:
        queries: examples mined for.
        candidates: documents in their rankings.
        positives: candidates that are known to answer: judged, or the positive's own text.
        false_negatives: candidates too near the positive's score.
        above_positive: how many of these score more than it.
        mined: negatives taken.
        random: negatives drawn where mining found too few.
        short: examples with fewer than ``per_query`` negatives.
    """

    queries: int = 0
    candidates: int = 0
    positives: int = 0
    false_negatives: int = 0
    above_positive: int = 0
    mined: int = 0
    random: int = 0
    short: int = 0


def mine_negatives(
    examples: Iterable[TrainingExample],
    documents: Sequence[Document],
    search: CandidateSearch,
    settings: MiningSettings,
    counts: MiningCounts,
    *,
    relevant: Mapping[str, AbstractSet[str]] | None = None,
) -> Iterator[TrainingExample]:
    """The same examples in the same order with negatives; those they have come first.

    A document is no negative of a query if it, or the document it is a passage of, is one of the
    query's positives, or has a positive's text.

    Args:
        examples: a stream; 1,024 are held.
        documents: n of them, what ``search`` ranks, in its order.
        search: BM25 or a dense model.
        settings: how they are chosen.
        counts: added to while examples are taken.
        relevant: further positives of a query, ids by the query's text.
    """
    rows = {document.id: row for row, document in enumerate(documents)}
    stream = iter(examples)
    while block := list(islice(stream, _AT_ONCE)):
        queries = [example.query for example in block]
        positives = [example.positive.content for example in block]
        ranked, scores = search.search(queries, positives, settings.depth)
        for example, found, score in zip(block, ranked, scores.tolist(), strict=True):
            known = {example.positive.id, *(relevant or {}).get(example.query, ())} - {""}
            parents = {
                documents[row].parent_id for one in known if (row := rows.get(one)) is not None
            } - {""}
            choice = _Choice(example, documents, known, parents)
            yield choice.made(found, score, settings, counts)


class _Choice:
    """Negatives of one example."""

    def __init__(
        self,
        example: TrainingExample,
        documents: Sequence[Document],
        known: AbstractSet[str],
        parents: AbstractSet[str],
    ) -> None:
        self._example, self._documents = example, documents
        self._known, self._parents = known, parents
        self._taken = {one.content for one in example.negatives}
        self._negatives = list(example.negatives)

    def made(
        self, found: Ranked, score: float, settings: MiningSettings, counts: MiningCounts
    ) -> TrainingExample:
        counts.queries += 1
        counts.candidates += len(found.rows)
        limit = settings.limit(score)
        refused: set[int] = set()
        for row, candidate in zip(found.rows.tolist(), found.scores.tolist(), strict=True):
            if self._is_positive(row):
                counts.positives += 1
            elif candidate >= limit:
                counts.false_negatives += 1
                counts.above_positive += candidate > score
                refused.add(row)
            elif len(self._negatives) < settings.per_query and self._take(row):
                counts.mined += 1
        if settings.fill and len(self._negatives) < settings.per_query:
            counts.random += self._fill(settings, refused)
        counts.short += len(self._negatives) < settings.per_query
        return replace(self._example, negatives=tuple(self._negatives))

    def _is_positive(self, row: int) -> bool:
        document = self._documents[row]
        return (
            document.id in self._known
            or document.parent_id in self._known
            or document.parent_id in self._parents
            or document.content == self._example.positive.content
        )

    def _take(self, row: int) -> bool:
        """Make a document a negative, unless its text is one already."""
        passage = Passage.of(self._documents[row])
        if passage.content in self._taken:
            return False
        self._taken.add(passage.content)
        self._negatives.append(passage)
        return True

    def _fill(self, settings: MiningSettings, refused: AbstractSet[int]) -> int:
        """Random documents; how many. A small corpus may not have enough."""
        key = f"{self._example.query}\0{self._example.positive.id}"
        digest = blake2b(key.encode(), digest_size=8).digest()
        rng = np.random.default_rng([settings.seed, int.from_bytes(digest, "little")])
        wanted = settings.per_query - len(self._negatives)
        drawn = rng.integers(len(self._documents), size=wanted * _DRAWS)
        before = len(self._negatives)
        for row in drawn.tolist():
            if len(self._negatives) == settings.per_query:
                break
            if row not in refused and not self._is_positive(row):
                self._take(row)
        return len(self._negatives) - before
