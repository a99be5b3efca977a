"""Where the rows start: the teacher's vectors of vocabulary entries, or of whole words too."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from steelyard.encoders.documents.batching import encode_in_batches
from steelyard.encoders.documents.protocol import Teacher
from steelyard.encoders.query.tokenizer import PackTokenizer, TokenRows
from steelyard.progress import Progress
from steelyard.types import DenseVectors, Document

MAX_WORDS = 12_000
"""Most words of several pieces that rows are fitted to, the most frequent first."""

_BATCH = 1024
_STEPS = 30
_PULL = 1.0
_WORD = re.compile(r"\w+")


def start_from_entries(teacher: Teacher, vocabulary_size: int, progress: Progress) -> DenseVectors:
    """Every vocabulary entry encoded alone, unit length ``[V, d]``."""
    start = np.empty((vocabulary_size, teacher.dims), dtype=np.float32)
    with progress.stage("encode the vocabulary", vocabulary_size) as advance:
        for first in range(0, vocabulary_size, _BATCH):
            ids = np.arange(first, min(first + _BATCH, vocabulary_size))
            start[ids] = teacher.encode_tokens(ids)
            advance(len(ids))
    return start


def start_from_words(
    entries: DenseVectors,
    documents: Sequence[Document],
    teacher: Teacher,
    tokenizer: PackTokenizer,
    progress: Progress,
) -> DenseVectors:
    """Rows moved so that the pieces of a word sum to the teacher's vector of the whole word.

    Least squares over the corpus' words of several pieces that two documents have, with a pull
    toward ``entries``: a piece such as ``##ase`` means nothing alone. The target of a word of p
    pieces has length sqrt(p), about that of a sum of p unit rows.

    Args:
        entries: ``[V, d]`` as of ``start_from_entries``.
        documents: the corpus, or a sample.
        teacher: encodes the words.
        tokenizer: the pack's dense one.
        progress: shows the stage.
    """
    words, tokens = _words_of_pieces(documents, tokenizer)
    if not words:
        return entries
    with progress.stage("encode words", len(words)) as advance:
        whole = encode_in_batches(
            words,
            teacher.token_lengths(words),
            teacher.encode_query,
            teacher.dims,
            advance=advance,
        )
    lengths = np.sqrt(np.diff(tokens.indptr)).astype(np.float32)
    return _least_squares(tokens, whole * lengths[:, None], entries)


def _words_of_pieces(
    documents: Sequence[Document], tokenizer: PackTokenizer
) -> tuple[list[str], TokenRows]:
    frequency: Counter[str] = Counter()
    for document in documents:
        frequency.update(set(_WORD.findall(document.content.lower())))
    words = [word for word, count in frequency.most_common() if count > 1]
    tokens = tokenizer.encode(words)
    several = np.flatnonzero(np.diff(tokens.indptr) > 1)[:MAX_WORDS]
    return [words[i] for i in several], tokens.select(several)


def _least_squares(
    tokens: TokenRows, targets: DenseVectors, start: DenseVectors
) -> NDArray[np.float32]:
    """Rows R that minimise |A R - targets|^2 + |R - start|^2, by conjugate gradients from start.

    A counts the tokens; every column is a problem of its own.
    """
    ones = np.ones(len(tokens.ids), dtype=np.float32)
    counts = csr_matrix((ones, tokens.ids, tokens.indptr), shape=(len(targets), len(start)))
    rows = start.copy()
    residual = counts.T @ (targets - counts @ rows)
    direction = residual.copy()
    square = np.square(residual).sum(axis=0)
    tiny = np.finfo(np.float32).tiny
    for _ in range(_STEPS):
        moved = counts.T @ (counts @ direction) + _PULL * direction
        step = square / np.maximum((direction * moved).sum(axis=0), tiny)
        rows += step * direction
        residual -= step * moved
        next_square = np.square(residual).sum(axis=0)
        direction = residual + (next_square / np.maximum(square, tiny)) * direction
        square = next_square
    return rows.astype(np.float32)
