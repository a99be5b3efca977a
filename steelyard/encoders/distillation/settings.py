"""The recipe's numbers, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from steelyard.encoders.distillation.stop_words import ENGLISH
from steelyard.errors import InputError

ENTRIES, WORDS = "entries", "words"
STARTS = (ENTRIES, WORDS)
REFINED = "pack"
"""In the recipe of a table that was refined: it started from a pack's own."""

AVERAGE, JOIN = "average", "join"
POOLINGS = (AVERAGE, JOIN)


@dataclass(frozen=True, slots=True)
class DistillationSettings:
    """How a query table is learned for a frozen model.

    Attributes:
        seed: of everything that is drawn.
        pseudo_queries: of all three kinds together, a third each; fewer if the corpus has fewer.
            Of each pool.
        pools: so many pools are drawn.
        pooling: ``average``: a table is learned from each pool, and their rows averaged;
            ``join``: one table is learned from all together.
        start: of the rows; ``entries``: every vocabulary entry encoded alone; ``words``: fitted
            to the corpus' words of several pieces, each encoded whole.
        held_out: about so many pseudo-queries, all of some documents, are kept from training
            for the estimate of quality.
        lean: how far a target leans from the teacher's vector toward its source document.
        divergence, margin: weights of the two losses on documents' scores, Kullback-Leibler and
            margin-MSE; 0 leaves one out.
        temperature_factor: softmax temperature, in standard deviations of the teacher's scores.
        candidates: random documents that a batch is compared on.
        hard_queries, hard_candidates: of so many queries of a batch, the teacher's so many best
            documents join the candidates.
        batch, epochs, learning_rate, final_learning_rate: of Adam with cosine decay;
            ``final_learning_rate`` is a fraction.
        stop_words: words that carry no topic.
    """

    seed: int = 0
    pseudo_queries: int = 72000
    pools: int = 1
    pooling: str = AVERAGE
    start: str = ENTRIES
    held_out: int = 600
    lean: float = 0.2
    divergence: float = 1.0
    margin: float = 0.0
    temperature_factor: float = 0.4
    candidates: int = 1024
    hard_queries: int = 64
    hard_candidates: int = 16
    batch: int = 512
    epochs: int = 8
    learning_rate: float = 5e-3
    final_learning_rate: float = 0.01
    stop_words: frozenset[str] = ENGLISH

    def __post_init__(self) -> None:
        """Refuse what cannot be learned from."""
        for what, value, known in (
            ("start", self.start, STARTS),
            ("pooling", self.pooling, POOLINGS),
        ):
            if value not in known:
                raise InputError(f"{what} {value!r}", f"choose {' or '.join(known)}")
        if self.pools < 1:
            raise InputError(f"{self.pools} pools", "one or more")
        if min(self.divergence, self.margin) < 0:
            raise InputError(f"weights of losses {self.divergence} and {self.margin}", "0 or more")
