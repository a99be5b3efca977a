"""The query encoder: what a pack is for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from steelyard.encoders.pack.files import PackContents, read_pack
from steelyard.encoders.pack.metadata import PackMetadata
from steelyard.encoders.query.tables import LookupTable
from steelyard.encoders.query.tokenizer import (
    PackTokenizer,
    TokenRows,
    encode_arms,
    load_tokenizer,
)
from steelyard.errors import InputError
from steelyard.types import DenseVectors, EncodedQueries, SparseVectors


class QueryEncoder:
    """Encodes queries by look-up: dense and sparse, no model.

    Thread-safe: after construction only the words that it remembers change. Open one with
    ``QueryEncoder.load``.
    """

    def __init__(self, contents: PackContents, where: str = "pack") -> None:
        metadata = contents.metadata
        dense, sparse = metadata.dense, metadata.sparse
        self.where = where
        self.metadata: PackMetadata = metadata
        loaded = load_tokenizer(contents.tokenizer_json, where, dense.rows)
        self.tokenizer, self.words = loaded.tokenizer, loaded.words
        self.tokenizer_json = contents.tokenizer_json
        self.dense_tokens = PackTokenizer(
            self.tokenizer,
            dense.rows,
            text_prefix=dense.text_prefix,
            max_tokens=dense.query_max_tokens,
            ignored_ids=dense.ignored_ids,
            words=self.words,
        )
        self.sparse_tokens = PackTokenizer(
            self.tokenizer,
            dense.rows,
            text_prefix=sparse.text_prefix,
            max_tokens=sparse.query_max_tokens,
            ignored_ids=sparse.ignored_ids,
            words=self.words,
        )
        self._one_tokenisation = (
            dense.text_prefix == sparse.text_prefix
            and dense.query_max_tokens == sparse.query_max_tokens
            and sorted(dense.ignored_ids) == sorted(sparse.ignored_ids)
        )
        self.tables = {
            name: LookupTable(
                contents.tables[f"table.{name}"], contents.tables.get(f"scale.{name}")
            )
            for name in dense.tables
        }
        self.query_weights: NDArray[np.float32] = np.asarray(contents.query_weights)
        self._has_weightless = bool((self.query_weights <= 0).any())

    @classmethod
    def load(cls, path: str | Path, *, verify: bool = True) -> QueryEncoder:
        """Open a query pack, tables memory-mapped.

        Args:
            path: the pack's folder.
            verify: compare checksums too; sizes are checked always.

        Raises:
            PackError: the pack is missing or damaged; the message says what and the remedy.
        """
        return cls(read_pack(Path(path), verify=verify), str(path))

    @property
    def dims(self) -> int:
        """Length of a dense query vector."""
        return self.metadata.dense.dims

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens, the columns of a sparse vector."""
        return self.metadata.dense.rows

    def encode_query(
        self, texts: str | Sequence[str], *, instruction: str | None = None
    ) -> EncodedQueries:
        """Encode one query or many, for both arms.

        Args:
            texts: a query, or n of them.
            instruction: name of the table; None is the pack's default.

        Returns:
            Vectors and flags of the n queries (n = 1 for a single string).

        Raises:
            InputError: the pack has no such instruction; the known ones are listed.
        """
        table = self._table(instruction)
        if isinstance(texts, str):
            return self._encode_one(texts, table)
        if self._one_tokenisation:
            tokens = terms = self.dense_tokens.encode(texts)
        else:
            tokens, terms = encode_arms([self.dense_tokens, self.sparse_tokens], texts)
        dense = table.encode(tokens)
        sparse = self._weigh(terms)
        empty = (tokens.indptr[1:] == tokens.indptr[:-1]) & (
            sparse.indptr[1:] == sparse.indptr[:-1]
        )
        return EncodedQueries(dense, sparse, empty, tokens.truncated | terms.truncated)

    def encode_dense(
        self, texts: Sequence[str], *, instruction: str | None = None
    ) -> DenseVectors:
        """Only the dense arm of many queries, ``[n, d]``."""
        _refuse_string(texts)
        return self._table(instruction).encode(self.dense_tokens.encode(texts))

    def encode_sparse(self, texts: Sequence[str]) -> SparseVectors:
        """Only the sparse arm of many queries, n rows."""
        _refuse_string(texts)
        return self._weigh(self.sparse_tokens.encode(texts))

    def token_vectors(
        self, text: str, *, instruction: str | None = None
    ) -> tuple[list[int], list[int], NDArray[np.float32]]:
        """A query's dense vector taken apart by token, for explaining scores.

        Args:
            text: one query.
            instruction: name of the table; None is the pack's default.

        Returns:
            Token ids, how often each occurs, and float32 ``[tokens, d]`` that adds up to the
            dense vector of the query.
        """
        table = self._table(instruction)
        tokens, _ = self.dense_tokens.encode_one(text)
        ids, counts = np.unique(np.array(tokens, dtype=np.int32), return_counts=True)
        rows = table.gather(ids) * counts[:, None].astype(np.float32)
        norm = float(np.linalg.norm(rows.sum(axis=0)))
        return ids.tolist(), counts.tolist(), rows / np.float32(norm) if norm else rows

    def _table(self, instruction: str | None) -> LookupTable:
        name = self.metadata.dense.default_table if instruction is None else instruction
        table = self.tables.get(name)
        if table is None:
            raise InputError(
                f"the pack has no instruction {name!r}", f"known: {', '.join(sorted(self.tables))}"
            )
        return table

    def _encode_one(self, text: str, table: LookupTable) -> EncodedQueries:
        tokens, cut = self.dense_tokens.encode_one(text)
        terms, terms_cut = (
            (tokens, cut) if self._one_tokenisation else self.sparse_tokens.encode_one(text)
        )
        # A few Python numbers: NumPy's own calls would cost more than the counting.
        counts: dict[int, int] = {}
        for term in terms:
            counts[term] = counts.get(term, 0) + 1
        found = sorted(counts)
        ids = np.array(found, dtype=np.int32)
        weights = self.query_weights.take(ids)
        if len(found) < len(terms):
            weights *= np.array([counts[term] for term in found], dtype=np.float32)
        if self._has_weightless and len(found):
            ids, weights = ids[weights > 0], weights[weights > 0]
        sparse = SparseVectors(
            np.array((0, len(ids)), dtype=np.int64), ids, weights, self.vocabulary_size
        )
        return EncodedQueries(
            table.encode_one(tokens)[None, :],
            sparse,
            np.array((not tokens and not len(ids),)),
            np.array((cut or terms_cut,)),
        )

    def _weigh(self, terms: TokenRows) -> SparseVectors:
        """Term counts times each token's query weight."""
        matrix = csr_matrix(
            (self.query_weights[terms.ids], terms.ids, terms.indptr),
            shape=(len(terms.indptr) - 1, self.vocabulary_size),
            copy=False,
        )
        return SparseVectors.from_csr(matrix)


def _refuse_string(texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise InputError("one string where many queries were expected", "pass a list of strings")
