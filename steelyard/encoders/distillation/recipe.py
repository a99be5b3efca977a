"""Look-up distillation: a table of token rows in the place of a frozen model's query encoder.

q = normalise(sum over the query's word pieces of table[t]), learned from the corpus's own text;
no labels, no test query, no early stopping on a judged set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.distillation.estimate import HeldOutEstimate, estimate, top_documents
from steelyard.encoders.distillation.pseudo_queries import draw_pseudo_queries
from steelyard.encoders.distillation.settings import DistillationSettings
from steelyard.encoders.distillation.training import train_table
from steelyard.encoders.documents.batching import encode_in_batches
from steelyard.encoders.documents.protocol import Teacher
from steelyard.encoders.query.tables import LookupTable
from steelyard.encoders.query.tokenizer import PackTokenizer
from steelyard.errors import InputError
from steelyard.progress import Progress
from steelyard.types import DenseVectors, Document, l2_normalise

_TEMPERATURE_QUERIES = 1000
_START_BATCH = 1024


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
    rng = np.random.default_rng(settings.seed)
    with progress.stage("draw pseudo-queries"):
        drawn = draw_pseudo_queries(documents, settings, rng)
        tokens = tokenizer.encode(drawn.texts)
        known = rng.permutation(np.flatnonzero(np.diff(tokens.indptr)))
        drawn, tokens = drawn.select(known), tokens.select(known)
        train, rest = _split_by_document(drawn.sources, settings.held_out, rng)
    if not len(rest) or not len(train):
        raise InputError(
            f"only {len(drawn)} pseudo-queries from {len(documents)} documents: too few",
            "give look-up distillation a larger corpus",
        )
    with progress.stage("encode pseudo-queries", len(drawn)) as advance:
        taught = encode_in_batches(
            drawn.texts,
            teacher.token_lengths(drawn.texts),
            teacher.encode_query,
            teacher.dims,
            advance=advance,
        )
    start = _start(teacher, vocabulary_size, progress)
    targets = l2_normalise(taught[train] + settings.lean * vectors[drawn.sources[train]])
    spread = float(np.std(taught[train][:_TEMPERATURE_QUERIES] @ vectors.T))
    temperature = settings.temperature_factor * max(spread, 1e-4)
    hard = top_documents(taught[train], vectors, settings.hard_candidates)
    steps = settings.epochs * -(-len(train) // settings.batch)
    with progress.stage("train the table", steps) as advance:
        trained = train_table(
            start,
            tokens.select(train),
            targets,
            vectors,
            hard,
            temperature,
            settings,
            rng,
            lambda _: advance(1),
        )
    progress.say("loss by epoch: " + " ".join(f"{loss:.3f}" for loss in trained.losses))
    lookup = LookupTable(trained.rows).encode(tokens.select(rest))
    kept = estimate(lookup, taught[rest], vectors, drawn.sources[rest])
    recipe = {
        "method": "look-up distillation",
        "seed": settings.seed,
        "pseudo_queries": len(train),
        "lean": settings.lean,
        "temperature": round(temperature, 6),
        "batch": settings.batch,
        "epochs": settings.epochs,
        "learning_rate": settings.learning_rate,
        "rows_trained": trained.touched,
        "epoch_losses": [round(loss, 5) for loss in trained.losses],
    }
    return DistilledTable(trained.rows, kept, recipe)


def _split_by_document(
    sources: NDArray[np.int64], held_out: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices to train on and to hold out: no document gives pseudo-queries to both.

    About ``held_out`` of them, at most a tenth.
    """
    documents, counts = np.unique(sources, return_counts=True)
    order = rng.permutation(len(documents))
    limit = min(held_out, len(sources) // 10)
    chosen = documents[order[np.cumsum(counts[order]) <= limit]]
    inside = np.isin(sources, chosen)
    return np.flatnonzero(~inside), np.flatnonzero(inside)


def _start(teacher: Teacher, vocabulary_size: int, progress: Progress) -> DenseVectors:
    """Every vocabulary entry encoded alone, unit length."""
    start = np.empty((vocabulary_size, teacher.dims), dtype=np.float32)
    with progress.stage("encode the vocabulary", vocabulary_size) as advance:
        for first in range(0, vocabulary_size, _START_BATCH):
            ids = np.arange(first, min(first + _START_BATCH, vocabulary_size))
            start[ids] = teacher.encode_tokens(ids)
            advance(len(ids))
    return start
