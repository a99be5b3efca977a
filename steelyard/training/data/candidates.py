"""What ranks documents for a query when negatives are looked for: BM25, or a dense model.

Both search exactly, in memory, block by block of queries; equal scores are ranked by position, so
that the same input gives the same candidates.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.distillation.stop_words import ENGLISH
from steelyard.encoders.documents.batching import length_batches
from steelyard.encoders.documents.bm25 import Bm25Encoder, count_corpus
from steelyard.encoders.documents.protocol import DocumentEncoder
from steelyard.encoders.query.tokenizer import PackTokenizer
from steelyard.encoders.query.word_cache import open_word_cache
from steelyard.errors import InputError
from steelyard.progress import Progress, SilentProgress
from steelyard.types import DenseVectors

QUERY_BLOCK = 64
DOCUMENT_BLOCK = 2048
MAX_WORDS = 2_000_000
"""Words that BM25 counts; of more, the rarest are left out."""

_UNKNOWN = "[UNK]"


class Ranked(NamedTuple):
    """Documents for one query, best first.

    Attributes:
        rows: int64, positions in the corpus.
        scores: float64, of each.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]


class CandidateSearch(Protocol):
    """Ranks the documents of one corpus."""

    def search(
        self, queries: Sequence[str], positives: Sequence[str], depth: int
    ) -> tuple[list[Ranked], NDArray[np.float64]]:
        """The ``depth`` best documents of n queries, and what each positive scores ``[n]``.

        Args:
            queries: n texts.
            positives: one text for each, scored as if it were a document of the corpus.
            depth: of each ranking; fewer if fewer documents share a term.
        """


class Bm25Candidates:
    """BM25 over the corpus's own words, lower-cased, without accents: no model, no pack.

    English stop words of a query are left out: else every "what is" has the same few negatives.

    Args:
        texts: n documents.
        k1, b: see ``Bm25Encoder``.
        progress: shown the passes.

    Raises:
        InputError: no document holds a word.
    """

    def __init__(
        self,
        texts: Sequence[str],
        *,
        k1: float = 1.2,
        b: float = 0.75,
        progress: Progress | None = None,
    ) -> None:
        with (progress or SilentProgress()).stage("count words", len(texts)) as advance:
            self._tokenizer = _word_tokenizer(texts)
            self._size = len(self._tokenizer.keep)
            statistics = count_corpus(texts, self._tokenizer, self._size)
            self._weights = statistics.idf()
            self._weights[_stop_ids(self._tokenizer)] = 0
            self._encoder = Bm25Encoder(
                self._tokenizer, self._size, avgdl=statistics.avgdl, k1=k1, b=b
            )
            blocks = []
            for block in _blocks(texts, DOCUMENT_BLOCK):
                blocks.append(self._documents(block))
                advance(len(block))
        from scipy.sparse import vstack

        self._by_word = vstack(blocks, format="csr").T.tocsr()

    def search(
        self, queries: Sequence[str], positives: Sequence[str], depth: int
    ) -> tuple[list[Ranked], NDArray[np.float64]]:
        """See ``CandidateSearch``; documents that share no word with the query are left out."""
        ranked: list[Ranked] = []
        known: list[NDArray[np.float64]] = []
        for first in range(0, len(queries), QUERY_BLOCK):
            span = slice(first, first + QUERY_BLOCK)
            matrix = self._queries(queries[span])
            scores = matrix.multiply(self._documents(positives[span])).sum(axis=1)
            known.append(np.asarray(scores, dtype=np.float64).ravel())
            products = (matrix @ self._by_word).tocsr()
            for row in range(products.shape[0]):
                inside = slice(products.indptr[row], products.indptr[row + 1])
                rows = products.indices[inside].astype(np.int64)
                ranked.append(best(rows, products.data[inside].astype(np.float64), depth))
        return ranked, _joined(known)

    def _documents(self, texts: Sequence[str]) -> Any:
        sparse = self._encoder.encode_document(texts).sparse
        assert sparse is not None  # noqa: S101  # Bm25Encoder serves this arm
        return sparse.to_csr().astype(np.float64)

    def _queries(self, texts: Sequence[str]) -> Any:
        from scipy.sparse import csr_matrix

        rows = self._tokenizer.encode(texts)
        weights = self._weights[rows.ids].astype(np.float64)
        shape = (len(texts), self._size)
        matrix = csr_matrix((weights, rows.ids, rows.indptr), shape=shape)
        matrix.sum_duplicates()  # a word said twice counts twice
        matrix.eliminate_zeros()
        return matrix


class DenseCandidates:
    """A dense model's own ranking, by inner product.

    Args:
        model: any document encoder with a dense arm. Queries go through its ``encode_query`` if
            it has one (a ``FullModel``, or a tower with a prompt), else they are read as
            documents.
        texts: n documents; all are encoded at once, and 4 n d bytes are held.
        progress: shown the encoding.

    Raises:
        InputError: the model has no dense arm, or gives a vector that is not finite.
    """

    def __init__(
        self, model: DocumentEncoder, texts: Sequence[str], *, progress: Progress | None = None
    ) -> None:
        self._model = model
        self._encode_query: Callable[[Sequence[str]], DenseVectors] = getattr(
            model, "encode_query", self._dense
        )
        with (progress or SilentProgress()).stage("encode documents", len(texts)) as advance:
            self._documents = self._encode(texts, self._dense, "document", advance)

    def search(
        self, queries: Sequence[str], positives: Sequence[str], depth: int
    ) -> tuple[list[Ranked], NDArray[np.float64]]:
        """See ``CandidateSearch``."""
        vectors = self._encode(queries, self._encode_query, "query")
        answers = self._encode(positives, self._dense, "positive")
        ranked: list[Ranked] = []
        everything = np.arange(len(self._documents), dtype=np.int64)
        for first in range(0, len(queries), QUERY_BLOCK):
            products = vectors[first : first + QUERY_BLOCK] @ self._documents.T
            ranked += [best(everything, row.astype(np.float64), depth) for row in products]
        return ranked, np.einsum("nd,nd->n", vectors, answers).astype(np.float64)

    def _encode(
        self,
        texts: Sequence[str],
        encode: Callable[[Sequence[str]], DenseVectors],
        what: str,
        advance: Callable[[int], None] = lambda _: None,
    ) -> DenseVectors:
        vectors: DenseVectors | None = None
        for batch in length_batches(self._model.token_lengths(texts)):
            made = encode([texts[i] for i in batch])
            bad = np.flatnonzero(~np.isfinite(made).all(axis=1))
            if len(bad):
                raise InputError(
                    f"the model's vector of a {what} is not finite: "
                    f"{texts[int(batch[bad[0]])][:60]!r}",
                    "another precision may do, or leave the text out",
                )
            if vectors is None:
                vectors = np.zeros((len(texts), made.shape[1]), dtype=np.float32)
            vectors[batch] = made
            advance(len(batch))
        return np.zeros((0, 0), dtype=np.float32) if vectors is None else vectors

    def _dense(self, texts: Sequence[str]) -> DenseVectors:
        dense = self._model.encode_document(texts).dense
        if dense is None:
            raise InputError("the model has no dense arm", "mine with a model that has one")
        return dense


def best(rows: NDArray[np.int64], scores: NDArray[np.float64], depth: int) -> Ranked:
    """The ``depth`` best, equal scores by row."""
    if len(rows) > depth:
        least = np.partition(scores, len(scores) - depth)[len(scores) - depth]
        kept = scores >= least
        rows, scores = rows[kept], scores[kept]
    order = np.lexsort((rows, -scores))[:depth]
    return Ranked(rows[order], scores[order])


def _word_tokenizer(texts: Sequence[str]) -> PackTokenizer:
    """Cuts text into the words that these texts hold."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import WordLevel
    from tokenizers.trainers import WordLevelTrainer

    tokenizer = Tokenizer(WordLevel({_UNKNOWN: 0}, unk_token=_UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = WordLevelTrainer(
        vocab_size=MAX_WORDS, min_frequency=1, show_progress=False, special_tokens=[_UNKNOWN]
    )
    tokenizer.train_from_iterator(texts, trainer)
    # Punctuation tells nothing, and every document has it.
    vocabulary = tokenizer.get_vocab()
    ignored = [i for word, i in vocabulary.items() if not any(c.isalnum() for c in word)]
    ignored_ids = sorted({vocabulary[_UNKNOWN], *ignored})
    words = open_word_cache(tokenizer, json.loads(tokenizer.to_str()))
    return PackTokenizer(tokenizer, len(vocabulary), ignored_ids=ignored_ids, words=words)


def _stop_ids(tokenizer: PackTokenizer) -> list[int]:
    vocabulary = tokenizer.tokenizer.get_vocab()
    return [i for word, i in vocabulary.items() if word in ENGLISH]


def _blocks(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (texts[first : first + size] for first in range(0, len(texts), size))


def _joined(parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate([np.zeros(0), *parts])
