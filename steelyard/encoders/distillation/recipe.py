"""Look-up distillation: a table of token rows in the place of a frozen model's query encoder.

q = normalise(sum over the query's word pieces of table[t]), learned from the corpus's own text;
no labels, no test query, no early stopping on a judged set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.distillation.estimate import (
    HeldOutEstimate,
    estimate,
    reciprocal_rank,
    top_documents,
)
from steelyard.encoders.distillation.pools import Pool, Pools, draw_pools
from steelyard.encoders.distillation.pseudo_queries import draw_pseudo_queries
from steelyard.encoders.distillation.settings import REFINED, WORDS, DistillationSettings
from steelyard.encoders.distillation.starts import start_from_entries, start_from_words
from steelyard.encoders.distillation.training import Lessons, TrainedTable, train_table
from steelyard.encoders.documents.protocol import FullModel, Teacher
from steelyard.encoders.query.tables import LookupTable
from steelyard.encoders.query.tokenizer import PackTokenizer
from steelyard.errors import InputError
from steelyard.progress import Progress
from steelyard.types import DenseVectors, Document, l2_normalise

_TEMPERATURE_QUERIES = 1000
_FRESH_SEED, _FRESH_DOCUMENTS, _FRESH_QUERIES = 20_011, 5000, 1500


@dataclass(frozen=True, slots=True)
class DistilledTable:
    """A learned query table and how it was learned.

    Attributes:
        rows: float32 ``[V, d]``.
        held_out: what it keeps of the teacher.
        recipe: settings and losses, as JSON.
    """

    rows: NDArray[np.float32]
    held_out: HeldOutEstimate
    recipe: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RefinedTable(DistilledTable):
    """A table that started from another.

    Attributes:
        before: what the start keeps of the teacher, on the same queries as ``held_out``.
    """

    before: HeldOutEstimate


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
    return _learn(start, pools, documents, vectors, tokenizer, settings, progress)


def refine(
    start: NDArray[np.float32],
    documents: Sequence[Document],
    vectors: DenseVectors,
    model: FullModel,
    tokenizer: PackTokenizer,
    settings: DistillationSettings,
    progress: Progress,
    work: Path,
) -> RefinedTable:
    """Learn on from a table that there is, on a corpus; ``settings.start`` takes no part.

    Rows of a language model's table are tens long (LightRetriever, section 1, does not normalise
    them), and Adam's steps are made for rows of about unit length: they are divided by a power of
    two, which rounds nothing, and multiplied by it at the end. A row that no pseudo-query
    touches is the start's, to the bit, and goes on fitting beside those that were learned.

    Args:
        start: ``[V, d]`` rows.
        documents: the corpus, or a sample of it.
        vectors: the model's vectors of the same documents ``[N, d]``.
        model: the full model under the table's own instruction; encodes the pseudo-queries.
        tokenizer: the pack's dense one.
        settings: the recipe's numbers; 0 epochs give the start.
        progress: shows the stages.
        work: where the pseudo-queries' vectors are kept.

    Raises:
        InputError: the corpus is too small to learn from.
    """
    pools = draw_pools(documents, model, tokenizer, settings, progress, work)
    _warn_of_missing_rows(start, pools, progress)
    unit = _power_of_two_near(start)
    made = _learn(start / unit, pools, documents, vectors, tokenizer, settings, progress)
    return RefinedTable(
        made.rows * unit,
        made.held_out,
        {**made.recipe, "start": REFINED, "unit": float(unit)},
        _estimate(start, pools.held_out, documents, vectors, tokenizer, settings),
    )


def _warn_of_missing_rows(start: NDArray[np.float32], pools: Pools, progress: Progress) -> None:
    """A table that was made for some queries only has zero rows where others have words."""
    used = np.unique(np.concatenate([pool.tokens.ids for pool in pools.taught]))
    missing = int((~start[used].any(axis=1)).sum())
    if missing:
        progress.say(
            f"{missing:,} of the {len(used):,} tokens that are taught have no row in the pack: "
            "they are learned from nothing"
        )


def _power_of_two_near(rows: NDArray[np.float32]) -> np.float32:
    """The power of two nearest to the median length of the rows, zero rows left out."""
    lengths = np.linalg.norm(rows, axis=1)
    lengths = lengths[lengths > 0]
    return np.float32(2.0 ** np.round(np.log2(np.median(lengths))) if len(lengths) else 1)


def _learn(
    start: DenseVectors,
    pools: Pools,
    documents: Sequence[Document],
    vectors: DenseVectors,
    tokenizer: PackTokenizer,
    settings: DistillationSettings,
    progress: Progress,
) -> DistilledTable:
    """A table a pool, averaged, and what it keeps."""
    rows = np.zeros_like(start)
    trained: list[TrainedTable] = []
    for pool in pools.taught:
        lessons = _lessons(pool, vectors, settings)
        trained.append(_train(start, lessons, vectors, settings, pool.rng, progress))
        rows += trained[-1].rows / len(pools.taught)
    # Thirds of a number need not add up to it.
    same = np.logical_and.reduce([(one.rows == start).all(axis=1) for one in trained])
    rows[same] = start[same]
    kept = _estimate(rows, pools.held_out, documents, vectors, tokenizer, settings)
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


def _estimate(
    rows: NDArray[np.float32],
    exam: Pool,
    documents: Sequence[Document],
    vectors: DenseVectors,
    tokenizer: PackTokenizer,
    settings: DistillationSettings,
) -> HeldOutEstimate:
    fresh = _fresh_rr(rows, documents, vectors, tokenizer, settings)
    lookup = LookupTable(rows).encode(exam.tokens)
    return estimate(lookup, exam.vectors, vectors, exam.sources, fresh)


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
    if trained.losses:
        progress.say("loss by epoch: " + " ".join(f"{loss:.3f}" for loss in trained.losses))
    return trained
