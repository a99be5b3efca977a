"""Look-up distillation: a table of token rows in the place of a frozen model's query encoder.

q = normalise(sum over the query's word pieces of table[t]), learned from the corpus's own text;
no labels, no test query, no early stopping on a judged set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.distillation.estimate import (
    HeldOutEstimate,
    estimate,
    reciprocal_rank,
    top_documents,
)
from steelyard.encoders.distillation.pools import Pool, draw_pools
from steelyard.encoders.distillation.pseudo_queries import draw_pseudo_queries
from steelyard.encoders.distillation.settings import WORDS, DistillationSettings
from steelyard.encoders.distillation.starts import start_from_entries, start_from_words
from steelyard.encoders.distillation.training import Lessons, TrainedTable, train_table
from steelyard.encoders.documents.protocol import Teacher
from steelyard.encoders.query.tables import LookupTable
from steelyard.encoders.query.tokenizer import PackTokenizer
from steelyard.errors import InputError
from steelyard.progress import Progress
from steelyard.types import DenseVectors, Document, l2_normalise

_TEMPERATURE_QUERIES = 1000
_FRESH_SEED, _FRESH_DOCUMENTS, _FRESH_QUERIES = 20_011, 5000, 1500


@dataclass(frozen=True, slots=True)
class DistilledTable:
    """A learned query table and how it was learned."""

    rows: NDArray[np.float32]
    held_out: HeldOutEstimate
    recipe: dict[str, Any]


def distill(
    documents: Sequence[Document],
    vectors: DenseVectors,
    teacher: Teacher,
    tokenizer: PackTokenizer,
    vocabulary_size: int,
    settings: DistillationSettings,
    progress: Progress,
) -> DistilledTable:
    """Learn a query table for a frozen teacher on a corpus.

    Args:
        documents: the corpus, or a sample of it.
        vectors: the teacher's vectors of the same documents ``[N, d]``.
        teacher: encodes the pseudo-queries and the vocabulary.
        tokenizer: the pack's dense one.
        vocabulary_size: rows of the table.
        settings: the recipe's numbers.
        progress: shows the stages.

    Raises:
        InputError: the corpus is too small to learn from.
    """
    pools = draw_pools(documents, teacher, tokenizer, settings, progress)
    start = start_from_entries(teacher, vocabulary_size, progress)
    if settings.start == WORDS:
        start = start_from_words(start, documents, teacher, tokenizer, progress)
    rows = np.zeros_like(start)
    trained: list[TrainedTable] = []
    for pool in pools.taught:
        lessons = _lessons(pool, vectors, settings)
        trained.append(_train(start, lessons, vectors, settings, pool.rng, progress))
        rows += trained[-1].rows / len(pools.taught)
    exam = pools.held_out
    lookup = LookupTable(rows).encode(exam.tokens)
    fresh = _fresh_rr(rows, documents, vectors, tokenizer, settings)
    kept = estimate(lookup, exam.vectors, vectors, exam.sources, fresh)
    recipe = {
        "method": "look-up distillation",
        "seed": settings.seed,
        "pseudo_queries": sum(len(pool.sources) for pool in pools.taught),
        "pools": settings.pools,
        "pooling": settings.pooling,
        "start": settings.start,
        "divergence": settings.divergence,
        "margin": settings.margin,
        "lean": settings.lean,
        "temperature": round(lessons.temperature, 6),
        "batch": settings.batch,
        "epochs": settings.epochs,
        "learning_rate": settings.learning_rate,
        "rows_trained": max(table.touched for table in trained),
        "epoch_losses": [round(loss, 5) for table in trained for loss in table.losses],
    }
    return DistilledTable(rows, kept, recipe)


def _fresh_rr(
    rows: NDArray[np.float32],
    documents: Sequence[Document],
    vectors: DenseVectors,
    tokenizer: PackTokenizer,
    settings: DistillationSettings,
) -> float:
    """See ``HeldOutEstimate``; the seed of the recipe takes no part, so that tables compare."""
    rng = np.random.default_rng(_FRESH_SEED)
    chosen = rng.permutation(len(documents))[:_FRESH_DOCUMENTS]
    some = [documents[i] for i in chosen]
    try:
        drawn = draw_pseudo_queries(some, replace(settings, pseudo_queries=_FRESH_QUERIES), rng)
    except InputError:  # no sentence in these; the table is learned already
        return 0.0
    found = LookupTable(rows).encode(tokenizer.encode(drawn.texts))
    return reciprocal_rank(top_documents(found, vectors), chosen[drawn.sources])


def _lessons(pool: Pool, vectors: DenseVectors, settings: DistillationSettings) -> Lessons:
    spread = float(np.std(pool.vectors[:_TEMPERATURE_QUERIES] @ vectors.T))
    return Lessons(
        pool.tokens,
        targets=l2_normalise(pool.vectors + settings.lean * vectors[pool.sources]),
        sources=pool.sources,
        hard=top_documents(pool.vectors, vectors, settings.hard_candidates),
        temperature=settings.temperature_factor * max(spread, 1e-4),
    )


def _train(
    start: DenseVectors,
    lessons: Lessons,
    vectors: DenseVectors,
    settings: DistillationSettings,
    rng: np.random.Generator,
    progress: Progress,
) -> TrainedTable:
    steps = settings.epochs * -(-len(lessons.targets) // settings.batch)
    with progress.stage("train the table", steps) as advance:
        trained = train_table(start, lessons, vectors, settings, rng, lambda _: advance(1))
    progress.say("loss by epoch: " + " ".join(f"{loss:.3f}" for loss in trained.losses))
    return trained
