"""Pools of pseudo-queries: drawn, encoded by the teacher, some documents' held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.distillation.full_queries import encode_full, encode_kept
from steelyard.encoders.distillation.pseudo_queries import PseudoQueries, draw_pseudo_queries
from steelyard.encoders.distillation.settings import JOIN, DistillationSettings
from steelyard.encoders.documents.protocol import FullModel
from steelyard.encoders.query.tokenizer import PackTokenizer, TokenRows
from steelyard.errors import InputError
from steelyard.progress import Progress
from steelyard.types import DenseVectors, Document


@dataclass(frozen=True, slots=True)
class Pool:
    """n pseudo-queries, none without tokens.

    Attributes:
        tokens: of each.
        sources: ``[n]`` index of each one's source document.
        vectors: the teacher's ``[n, d]``.
        rng: draws what learning from this pool draws.
    """

    tokens: TokenRows
    sources: NDArray[np.int64]
    vectors: DenseVectors
    rng: np.random.Generator

    def select(self, chosen: NDArray[np.bool_]) -> Pool:
        """Those where ``chosen`` is true."""
        tokens = self.tokens.select(np.flatnonzero(chosen))
        return Pool(tokens, self.sources[chosen], self.vectors[chosen], self.rng)


@dataclass(frozen=True, slots=True)
class Pools:
    """What is taught, one table a pool, and what is held out: no document gives to both."""

    taught: list[Pool]
    held_out: Pool


def draw_pools(
    documents: Sequence[Document],
    teacher: FullModel,
    tokenizer: PackTokenizer,
    settings: DistillationSettings,
    progress: Progress,
    work: Path | None = None,
) -> Pools:
    """Draw ``settings.pools`` pools and encode them.

    Args:
        documents: the corpus, or a sample of it.
        teacher: the full model.
        tokenizer: the pack's dense one.
        settings: the recipe's numbers.
        progress: shows the stages.
        work: where vectors are kept, so that a stopped job goes on; None keeps none.

    Raises:
        InputError: the corpus is too small to learn from.
    """
    pools: list[Pool] = []
    held: NDArray[np.int64] = np.array([], dtype=np.int64)
    for number in range(settings.pools):
        rng = pool_generator(settings, number)
        with progress.stage("draw pseudo-queries"):
            drawn, tokens = _draw(documents, tokenizer, settings, rng)
        if not number:
            held = _documents_to_hold_out(drawn.sources, settings.held_out, rng)
        inside = np.isin(drawn.sources, held)
        if inside.all() or not inside.any():
            raise InputError(
                f"only {len(drawn)} pseudo-queries from {len(documents)} documents: too few",
                "give look-up distillation a larger corpus",
            )
        if number:  # the first pool's are enough to measure on
            others = np.flatnonzero(~inside)
            drawn, tokens = drawn.select(others), tokens.select(others)
        with progress.stage("encode pseudo-queries", len(drawn)) as advance:
            if work is None:
                vectors = encode_full(teacher, drawn.texts, advance)
            else:
                vectors = encode_kept(teacher, drawn.texts, work, advance)
        pools.append(Pool(tokens, drawn.sources, vectors, rng))
    inside = np.isin(pools[0].sources, held)
    taught = [pools[0].select(~inside), *pools[1:]]
    return Pools(
        [_joined(taught)] if settings.pooling == JOIN else taught, pools[0].select(inside)
    )


def pool_generator(settings: DistillationSettings, number: int = 0) -> np.random.Generator:
    """What draws the pseudo-queries of a pool."""
    return np.random.default_rng([settings.seed, number] if number else settings.seed)


def _draw(
    documents: Sequence[Document],
    tokenizer: PackTokenizer,
    settings: DistillationSettings,
    rng: np.random.Generator,
) -> tuple[PseudoQueries, TokenRows]:
    drawn = draw_pseudo_queries(documents, settings, rng)
    tokens = tokenizer.encode(drawn.texts)
    known = rng.permutation(np.flatnonzero(np.diff(tokens.indptr)))
    return drawn.select(known), tokens.select(known)


def _documents_to_hold_out(
    sources: NDArray[np.int64], held_out: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Documents that give about ``held_out`` of the pseudo-queries, at most a tenth."""
    documents, counts = np.unique(sources, return_counts=True)
    order = rng.permutation(len(documents))
    limit = min(held_out, len(sources) // 10)
    chosen: NDArray[np.int64] = documents[order[np.cumsum(counts[order]) <= limit]]
    return chosen if len(chosen) else documents[[int(counts.argmin())]]


def _joined(pools: Sequence[Pool]) -> Pool:
    """One pool of all, in the order given; a text that two pools hold is taught twice as often."""
    rows = [pool.tokens for pool in pools]
    lengths = np.concatenate([np.diff(part.indptr) for part in rows])
    tokens = TokenRows(
        np.concatenate([part.ids for part in rows]),
        np.concatenate([[0], np.cumsum(lengths)]),
        np.concatenate([part.truncated for part in rows]),
    )
    return Pool(
        tokens,
        np.concatenate([pool.sources for pool in pools]),
        np.concatenate([pool.vectors for pool in pools]),
        pools[0].rng,
    )
