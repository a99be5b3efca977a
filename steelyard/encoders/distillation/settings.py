"""The recipe's numbers, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from steelyard.encoders.distillation.stop_words import ENGLISH


@dataclass(frozen=True, slots=True)
class DistillationSettings:
    """How a query table is learned for a frozen model.

    Attributes:
        seed: of everything that is drawn.
        pseudo_queries: of all three kinds together, a third each; fewer if the corpus has fewer.
        held_out: about so many pseudo-queries, all of some documents, are kept from training
            for the estimate of quality.
        lean: how far a target leans from the teacher's vector toward its source document.
        temperature_factor: softmax temperature, in standard deviations of the teacher's scores.
        candidates: random documents that a batch is compared on.
        hard_queries, hard_candidates: of so many queries of a batch, the teacher's so many best
            documents join the candidates.
        batch, epochs, learning_rate, final_learning_rate: of Adam with cosine decay;
            ``final_learning_rate`` is a fraction.
        stop_words: words that carry no topic.
    """

    seed: int = 0
    pseudo_queries: int = 36000
    held_out: int = 600
    lean: float = 0.2
    temperature_factor: float = 0.4
    candidates: int = 1024
    hard_queries: int = 64
    hard_candidates: int = 16
    batch: int = 512
    epochs: int = 8
    learning_rate: float = 5e-3
    final_learning_rate: float = 0.01
    stop_words: frozenset[str] = ENGLISH
