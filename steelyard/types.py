"""The words that every layer speaks: documents, vectors, encoded queries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

DenseVectors: TypeAlias = NDArray[np.float32]
"""Unit rows, float32 ``[n, d]``, compared by inner product; a zero row means "nothing"."""

MetadataValue: TypeAlias = str | int | float | bool | None

MAX_ID_BYTES = 512
"""Longest document id, in UTF-8 bytes: what OpenSearch and Milvus both accept."""


@dataclass(frozen=True, slots=True)
class Document:
    """One retrievable unit.

    Attributes:
        id: unique in its index, at most 512 bytes.
        text: the body; never blank together with a blank title.
        title: may be empty.
        parent_id: the document this is a passage of; its own id when it is whole.
        metadata: values of the declared metadata fields.
    """

    id: str
    text: str
    title: str = ""
    parent_id: str = ""
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """What the encoders read: title, a space, text (LightRetriever's join)."""
        return f"{self.title} {self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class SparseVectors:
    """Rows of non-negative term weights in compressed sparse row form.

    Attributes:
        indptr: int64 ``[n + 1]``; row i is ``ids[indptr[i]:indptr[i + 1]]``.
        ids: int32 ``[nnz]`` token ids, ascending and unique in a row.
        weights: float32 ``[nnz]``, all greater than 0.
        vocabulary_size: number of columns.
    """

    indptr: NDArray[np.int64]
    ids: NDArray[np.int32]
    weights: NDArray[np.float32]
    vocabulary_size: int

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def row(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Token ids and weights of one row (views, not copies)."""
        span = slice(int(self.indptr[index]), int(self.indptr[index + 1]))
        return self.ids[span], self.weights[span]

    def rows(self) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float32]]]:
        """All rows in order, as ``row`` gives them."""
        return (self.row(index) for index in range(len(self)))

    def heaviest(self, count: int) -> SparseVectors:
        """At most ``count`` terms a row, the heaviest; of equal ones those of smaller id."""
        rows = []
        for ids, weights in self.rows():
            keep = np.sort(np.lexsort((ids, -weights))[:count])
            rows.append((ids[keep], weights[keep]))
        return SparseVectors.from_rows(rows, self.vocabulary_size)

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> SparseVectors:
        """The named rows, in the order named."""
        return SparseVectors.from_csr(self.to_csr()[np.asarray(indices, dtype=np.int64)])

    def to_csr(self) -> csr_matrix:
        """The same numbers as a SciPy matrix ``[n, vocabulary_size]``."""
        from scipy.sparse import csr_matrix

        return csr_matrix(
            (self.weights, self.ids, self.indptr), shape=(len(self), self.vocabulary_size)
        )

    @classmethod
    def from_csr(cls, matrix: csr_matrix) -> SparseVectors:
        """Take a SciPy matrix; duplicates are summed, ids sorted, weights <= 0 dropped."""
        matrix = matrix.astype(np.float32)
        matrix.sum_duplicates()
        if matrix.nnz and float(matrix.data.min()) <= 0:
            matrix.data[matrix.data < 0] = 0
            matrix.eliminate_zeros()
        return cls(
            matrix.indptr.astype(np.int64),
            matrix.indices.astype(np.int32),
            matrix.data,
            int(matrix.shape[1]),
        )

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[tuple[NDArray[np.int32], NDArray[np.float32]]],
        vocabulary_size: int,
    ) -> SparseVectors:
        """Join rows that are already sorted and positive."""
        indptr = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(ids) for ids, _ in rows], out=indptr[1:])
        return cls(
            indptr,
            np.concatenate([np.zeros(0, np.int32), *(ids for ids, _ in rows)]),
            np.concatenate([np.zeros(0, np.float32), *(weights for _, weights in rows)]),
            vocabulary_size,
        )


@dataclass(frozen=True, slots=True)
class DocumentVectors:
    """What a document encoder makes of n texts; an arm it does not serve is ``None``."""

    dense: DenseVectors | None = None
    sparse: SparseVectors | None = None


@dataclass(frozen=True, slots=True)
class EncodedDocuments:
    """Documents with their vectors: what shards hold and engines are loaded with.

    Attributes:
        documents: n documents.
        dense: float32 ``[n, d]``, all finite.
        sparse: n rows of float weights; engines quantise them.
    """

    documents: Sequence[Document]
    dense: DenseVectors
    sparse: SparseVectors

    def __len__(self) -> int:
        return len(self.documents)

    def select(self, rows: Sequence[int]) -> EncodedDocuments:
        """The named rows, in the order named."""
        documents = [self.documents[row] for row in rows]
        return EncodedDocuments(documents, self.dense[rows], self.sparse.select(rows))


@dataclass(frozen=True, slots=True)
class EncodedQueries:
    """What a query encoder makes of n texts.

    Attributes:
        dense: float32 ``[n, d]``; a query without a known token has a zero row.
        sparse: n rows; a query without a known token has an empty row.
        empty: bool ``[n]``, True where no token was known to either arm.
        truncated: bool ``[n]``, True where the query was cut to ``query_max_tokens``.
    """

    dense: DenseVectors
    sparse: SparseVectors
    empty: NDArray[np.bool_]
    truncated: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.dense)


def l2_normalise(
    vectors: NDArray[np.float32], out: NDArray[np.float32] | None = None
) -> DenseVectors:
    """Rows scaled to unit length, float32 ``[n, d]``; zero rows stay zero.

    Args:
        vectors: float32 ``[n, d]``.
        out: where to write them, perhaps ``vectors``; None: a new array.
    """
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    norms[norms == 0] = 1
    scaled: DenseVectors = np.divide(vectors, norms[:, None], out=out)
    return scaled
