"""A judged collection read by a tower as it is now: for towers that are still being trained.

No pack and no table are made: a light query is computed from its blocks, which gives what the
look-up would give. Everything else is as it is served: texts cut and lower-cased alike, the
heaviest terms of a document as integer impacts, term counts of a query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from steelyard.encoders.causal.sparse_head import heaviest_terms
from steelyard.encoders.causal.tokens import CausalTokenizer
from steelyard.encoders.causal.tower import DEFAULT_MAX_TERMS
from steelyard.encoders.documents.batching import BATCH_TOKENS, length_batches
from steelyard.encoders.pack.metadata import IMPACT_SCALE
from steelyard.errors import InputError
from steelyard.eval.collection import JudgedQueries, read_judged
from steelyard.indexer.reading.documents import good_documents
from steelyard.indexer.reading.readers import open_corpus
from steelyard.plugin.quantise import quantise
from steelyard.progress import Progress
from steelyard.training.batches import Batch
from steelyard.training.settings import BatchSettings
from steelyard.training.tokenised import tokenise
from steelyard.training.towers import Towers
from steelyard.types import DenseVectors, Document, SparseVectors

_QUERIES = 256
"""Read at once: their different tokens share sequences."""


@dataclass(frozen=True, slots=True)
class JudgedCollection:
    """Documents, and the queries that one of them answers."""

    documents: list[Document]
    judged: JudgedQueries


@dataclass(frozen=True, slots=True)
class ReadingSettings:
    """How texts are read.

    Attributes:
        prompt: before a full query; the light query's is in the towers.
        document_tokens, query_tokens: texts are cut to this, as in ``BatchSettings``.
        max_terms: heaviest terms kept a document.
        batch_tokens: padded tokens read at once.
    """

    prompt: str
    document_tokens: int = 512
    query_tokens: int = 512
    max_terms: int = DEFAULT_MAX_TERMS
    batch_tokens: int = BATCH_TOKENS


@dataclass(frozen=True, slots=True)
class TowerVectors:
    """What a tower makes of a collection: n documents, q queries.

    Attributes:
        full, light: unit query vectors float32 ``[q, d]``; zeros for a query without tokens.
        counts: term counts, q rows.
        dense: unit document vectors float32 ``[n, d]``.
        impacts: of the heaviest terms, n rows.
        terms: mean number of terms over 0 of a document, before it is cut.
        flops: sum over terms of (mean weight)^2, likewise: what the regulariser holds down.
    """

    full: DenseVectors
    light: DenseVectors
    counts: SparseVectors
    dense: DenseVectors
    impacts: SparseVectors
    terms: float
    flops: float


def read_judged_collection(folder: Path, split: str = "test") -> JudgedCollection:
    """A BEIR folder in memory; queries that none of its documents answers are left out.

    Raises:
        InputError: no such split, or no query is left.
    """
    judged = read_judged(folder, split)
    documents = list(good_documents(open_corpus(folder)))
    known = {document.id for document in documents}
    answered = [
        query
        for query in judged.queries
        if any(grade > 0 and one in known for one, grade in judged.qrels[query.id].items())
    ]
    if not answered:
        raise InputError(
            f"{folder} holds no document that answers one of the {len(judged.queries)} queries "
            f"judged in {split!r}",
            "give the folder with their documents",
        )
    return JudgedCollection(documents, replace(judged, queries=answered))


def read_with(
    towers: Towers,
    tokens: CausalTokenizer,
    collection: JudgedCollection,
    settings: ReadingSettings,
    progress: Progress,
) -> TowerVectors:
    """Read documents and queries, without gradients and without dropout.

    Args:
        towers: left in the mode that they are in.
        tokens: their tokenizer.
        collection: what is read.
        settings: how.
        progress: shows the two stages.
    """
    texts = [query.text for query in collection.judged.queries]
    contents = [document.content for document in collection.documents]
    lengths = BatchSettings(
        document_tokens=settings.document_tokens, query_tokens=settings.query_tokens
    )
    ids = tokenise(Batch(texts, contents), tokens, settings.prompt, lengths)
    sharing = replace(towers, share_blocks=True)
    with _reading(towers):
        with progress.stage("read documents", len(collection.documents)) as advance:
            documents = _Documents(towers, tokens.rows, settings).read(ids.documents, advance)
        with progress.stage("read queries", len(texts)) as advance:
            made = []
            for first in range(0, len(texts), _QUERIES):
                with towers.arithmetic():
                    vectors = sharing.light(ids.light[first : first + _QUERIES])
                made.append(vectors.cpu().float().numpy())
            whole = np.zeros((len(texts), documents.dense.shape[1]), dtype=np.float32)
            for batch in length_batches(_lengths(ids.full), settings.batch_tokens):
                with towers.arithmetic():
                    vectors = towers.full([ids.full[i] for i in batch])
                whole[batch] = vectors.cpu().float().numpy()
                advance(len(batch))
    return replace(
        documents,
        full=whole,
        light=np.concatenate(made),
        counts=_counts(ids.counted, tokens.rows),
    )


@dataclass(frozen=True, slots=True)
class _Documents:
    """Reads the documents of a collection."""

    towers: Towers
    columns: int
    settings: ReadingSettings

    def read(self, rows: list[list[int]], advance: Callable[[int], None]) -> TowerVectors:
        """Their part of the vectors; that of the queries is empty."""
        dense: list[DenseVectors] = [np.zeros(0, np.float32)] * len(rows)
        kept: list[tuple[NDArray[np.int32], NDArray[np.float32]]] = [
            (np.zeros(0, np.int32), np.zeros(0, np.float32))
        ] * len(rows)
        total, terms = np.zeros(self.columns), 0
        for batch in length_batches(_lengths(rows), self.settings.batch_tokens):
            with self.towers.arithmetic():
                vectors, weights = self.towers.documents([rows[i] for i in batch])
            weights = weights[:, : self.columns].float()
            total += weights.double().sum(dim=0).cpu().numpy()
            terms += int((weights > 0).sum())
            heaviest = heaviest_terms(weights, self.settings.max_terms)
            for index, vector, row in zip(
                batch.tolist(), vectors.cpu().float().numpy(), heaviest.rows(), strict=True
            ):
                dense[index], kept[index] = vector, row
            advance(len(batch))
        impacts, _ = quantise(SparseVectors.from_rows(kept, self.columns), IMPACT_SCALE)
        nothing = np.zeros((0, len(dense[0])), np.float32)
        return TowerVectors(
            full=nothing,
            light=nothing,
            counts=SparseVectors.from_rows([], self.columns),
            dense=np.stack(dense),
            impacts=impacts,
            terms=terms / len(rows),
            flops=float(((total / len(rows)) ** 2).sum()),
        )


@contextmanager
def _reading(towers: Towers) -> Iterator[None]:
    """Without gradients and dropout; then the mode is what it was."""
    import torch

    training = towers.backbone.training
    towers.backbone.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        towers.backbone.train(training)


def _counts(rows: Sequence[Sequence[int]], columns: int) -> SparseVectors:
    """How often each query has each token."""
    indptr = np.concatenate([[0], np.cumsum(_lengths(rows))])
    ids = np.array([token for row in rows for token in row], dtype=np.int32)
    ones = np.ones(len(ids), dtype=np.float32)
    return SparseVectors.from_csr(csr_matrix((ones, ids, indptr), shape=(len(rows), columns)))


def _lengths(rows: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    return np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
