"""BM25 as an inner product: the sparse half of a pack over a frozen dense model.

score(q, d) = sum over the query's tokens of idf(t) * tf (k1 + 1) / (tf + k1 (1 - b + b dl/avgdl)).
The factor that depends on the document is its weight, idf is the query's, so the inner product
IS BM25 (the formula of Robertson and Zaragoza with Lucene's idf, ln(1 + (N - df + .5)/(df + .5)),
which is never negative).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.pack.metadata import BM25
from steelyard.encoders.query.tokenizer import PackTokenizer
from steelyard.errors import InputError
from steelyard.types import DocumentVectors, SparseVectors

KIND = BM25
MAX_K1 = 4.0
"""A weight stays under k1 + 1, so that 100 times it stays under the largest impact, 512."""


@dataclass(frozen=True, slots=True)
class CorpusStatistics:
    """What BM25 knows of a corpus.

    Attributes:
        documents: number of documents counted.
        tokens: number of tokens in them.
        frequencies: int64 ``[V]``, in how many documents each token occurs.
    """

    documents: int
    tokens: int
    frequencies: NDArray[np.int64]

    @property
    def avgdl(self) -> float:
        """Mean document length in tokens."""
        return self.tokens / self.documents

    def idf(self) -> NDArray[np.float32]:
        """Query weight of each token, float32 ``[V]``; a token never seen has the largest."""
        df = self.frequencies
        return np.log1p((self.documents - df + 0.5) / (df + 0.5)).astype(np.float32)


def count_corpus(
    texts: Iterable[str], tokenizer: PackTokenizer, vocabulary_size: int, *, chunk: int = 2048
) -> CorpusStatistics:
    """One pass over a corpus of any size.

    Raises:
        InputError: no text holds a known token.
    """
    frequencies = np.zeros(vocabulary_size, dtype=np.int64)
    documents = tokens = 0
    for batch in _chunks(texts, chunk):
        counts = _term_counts(batch, tokenizer, vocabulary_size)
        documents += len(counts)
        tokens += int(counts.weights.sum())
        frequencies += np.bincount(counts.ids, minlength=vocabulary_size)
    if not tokens:
        raise InputError(
            f"{documents} documents hold no token the tokenizer knows", "check the corpus"
        )
    return CorpusStatistics(documents, tokens, frequencies)


def check_settings(k1: float, b: float) -> None:
    """Raise an InputError for settings that BM25 is not defined for."""
    if not (0 < k1 <= MAX_K1 and 0 <= b <= 1):
        raise InputError(
            f"BM25 with k1 {k1} and b {b}", f"k1 is over 0, at most {MAX_K1}; b is 0 to 1"
        )


class Bm25Encoder:
    """Document weights of BM25 over a pack's own tokens.

    Args:
        tokenizer: the pack's, without a length limit.
        vocabulary_size: columns of the vectors.
        avgdl: mean document length of the generation.
        k1: term frequency saturation, > 0.
        b: length normalisation, 0 to 1.
        max_terms: heaviest terms kept a document; None keeps all, so that scores are exact.

    Raises:
        InputError: a setting out of its range.
    """

    def __init__(
        self,
        tokenizer: PackTokenizer,
        vocabulary_size: int,
        *,
        avgdl: float,
        k1: float = 1.2,
        b: float = 0.75,
        max_terms: int | None = None,
    ) -> None:
        check_settings(k1, b)
        self.tokenizer = tokenizer
        self.vocabulary_size = vocabulary_size
        self.avgdl, self.k1, self.b, self.max_terms = avgdl, k1, b, max_terms

    def encode_document(self, texts: Sequence[str]) -> DocumentVectors:
        """Sparse weights of n texts, whole texts whatever their length."""
        counts = _term_counts(texts, self.tokenizer, self.vocabulary_size)
        sizes = np.diff(counts.indptr)
        frequency = counts.weights.astype(np.float64)
        owner = np.repeat(np.arange(len(counts)), sizes)
        length = np.bincount(owner, weights=frequency, minlength=len(counts))
        norm = self.k1 * (1 - self.b + self.b * length / self.avgdl)
        weights = frequency * (self.k1 + 1) / (frequency + norm[owner])
        sparse = SparseVectors(
            counts.indptr, counts.ids, weights.astype(np.float32), self.vocabulary_size
        )
        return DocumentVectors(
            sparse=sparse if self.max_terms is None else sparse.heaviest(self.max_terms)
        )

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Counting is cheap and needs no padding: every text costs the same."""
        return np.ones(len(texts), dtype=np.int64)


def _term_counts(
    texts: Sequence[str], tokenizer: PackTokenizer, vocabulary_size: int
) -> SparseVectors:
    from scipy.sparse import csr_matrix

    rows = tokenizer.encode(texts)
    ones = np.ones(len(rows.ids), dtype=np.float32)
    return SparseVectors.from_csr(
        csr_matrix((ones, rows.ids, rows.indptr), shape=(len(texts), vocabulary_size))
    )


def _chunks(texts: Iterable[str], size: int) -> Iterable[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
