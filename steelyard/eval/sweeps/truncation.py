"""Smaller vectors, rows of terms and tables, made from what is there.

The first components of a vector are a vector of their own if the model was trained so (MRL,
Matryoshka representation learning); any other model loses more by it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.query.tables import LookupTable, check_dtype, quantise_int8
from steelyard.types import DenseVectors, SparseVectors, l2_normalise

POSTING_BYTES = 13
"""What one posting costs in an engine, about."""


def first_dims(vectors: DenseVectors, dims: int) -> DenseVectors:
    """The first components ``[n, dims]`` at unit length; all of them are left as they are."""
    if dims == vectors.shape[1]:
        return vectors
    return l2_normalise(np.ascontiguousarray(vectors[:, :dims]))


def heaviest_terms(vectors: SparseVectors, count: int | None) -> SparseVectors:
    """At most ``count`` impacts a document; None, or rows that are short enough: as they are."""
    if count is None or int(np.diff(vectors.indptr).max(initial=0)) <= count:
        return vectors
    return vectors.heaviest(count)


def widened(table: LookupTable) -> NDArray[np.float32]:
    """A whole table as float32 ``[V, d]``."""
    return table.gather(np.arange(len(table.rows), dtype=np.int64))


def narrowed(rows: NDArray[np.float32], dims: int, dtype: str) -> LookupTable:
    """The first columns of a float32 table ``[V, d]``, stored as ``dtype``.

    Raises:
        InputError: an unknown dtype.
    """
    check_dtype(dtype)
    kept = np.ascontiguousarray(rows[:, :dims])
    if dtype == "int8":
        return LookupTable(*quantise_int8(kept))
    stored: NDArray[Any] = kept.astype(dtype, copy=False)
    return LookupTable(stored)


def dense_bytes(vectors: DenseVectors) -> int:
    """Of the vectors as engines store them: float32."""
    return int(vectors.astype(np.float32, copy=False).nbytes)


def posting_bytes(vectors: SparseVectors) -> int:
    """Of the postings of all documents."""
    return POSTING_BYTES * len(vectors.ids)


def table_bytes(table: LookupTable) -> int:
    """Of a table and its scales."""
    return int(table.rows.nbytes) + (0 if table.scale is None else int(table.scale.nbytes))
