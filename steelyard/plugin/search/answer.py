"""What a search gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from steelyard.types import Document


@dataclass(frozen=True, slots=True)
class ArmHit:
    """What one arm says of one document: its own score, and its rank from 1."""

    score: float
    rank: int


@dataclass(frozen=True, slots=True)
class TermMatch:
    """One token's part in a score.

    Attributes:
        token: its string, as the pack's tokenizer writes it.
        query: its weight in the query: times it occurs, times the token's own weight.
        document: its weight in the document; None in the dense arm, which has none.
        score: what it adds to the arm's score.
    """

    token: str
    query: float
    document: float | None
    score: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a document is where it is.

    Attributes:
        fusion: ``min-max`` or ``rrf``.
        arms: by arm, what fusion made of its score and rank; they add up to the fused score.
        recency: factor that the fused score was multiplied by; None without recency.
        sparse: matched tokens, the one that adds most first.
        dense: the query's tokens by their part in the dense score, likewise; empty after
            feedback, which mixes documents into the query.
    """

    fusion: str
    arms: Mapping[str, float]
    recency: float | None
    sparse: Sequence[TermMatch]
    dense: Sequence[TermMatch]


@dataclass(frozen=True, slots=True)
class Hit:
    """One result.

    Attributes:
        id, score: the fused score.
        dense, sparse, match: what each arm said; None where it did not return the document.
        document: title, text and metadata; None where they were not asked for.
        parent_id: the document that this one is a passage of, its own id when it is whole; empty
            where no documents were read.
        highlights: by field, fragments with the query's words between <em> and </em>.
        explanation: only when asked for.
    """

    id: str
    score: float
    dense: ArmHit | None = None
    sparse: ArmHit | None = None
    match: ArmHit | None = None
    document: Document | None = None
    highlights: Mapping[str, Sequence[str]] = field(default_factory=dict)
    explanation: Explanation | None = None
    parent_id: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one query.

    Attributes:
        hits: best first.
        generation: which build of the index answered.
        empty: the query had no known token, so there are no hits.
        truncated: the query was cut to the pack's ``query_max_tokens``.
        seconds: from text to hits.
        encode_seconds: of these, for encoding the query.
        missing: what did not answer and why: an arm's name, ``feedback``, ``documents``,
            ``parents`` (hits are not grouped), ``highlights``; only with
            ``on_engine_failure="degrade"``.
        behind: why a newer generation is not searched; empty when this is the newest.
    """

    hits: list[Hit]
    generation: str
    empty: bool
    truncated: bool
    seconds: float
    encode_seconds: float = 0.0
    missing: Mapping[str, str] = field(default_factory=dict)
    behind: str = ""
