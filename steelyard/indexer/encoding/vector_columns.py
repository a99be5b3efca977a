"""The vector columns of every Parquet file Steelyard writes: dense, sparse_ids, sparse_weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from steelyard.errors import needs_extra
from steelyard.types import DenseVectors, SparseVectors

with needs_extra("index"):
    import pyarrow as pa

VOCABULARY_KEY = b"steelyard.vocabulary_size"


def vector_fields(dims: int) -> list[Any]:
    """Arrow fields: fixed-size float32 lists, and two parallel lists a row."""
    return [
        pa.field("dense", pa.list_(pa.float32(), dims)),
        pa.field("sparse_ids", pa.list_(pa.int32())),
        pa.field("sparse_weights", pa.list_(pa.float32())),
    ]


def vector_arrays(dense: DenseVectors, sparse: SparseVectors) -> list[Any]:
    """The vectors as Arrow arrays, without a Python loop."""
    offsets = pa.array(sparse.indptr.astype(np.int32))
    return [
        pa.FixedSizeListArray.from_arrays(pa.array(dense.ravel()), dense.shape[1]),
        pa.ListArray.from_arrays(offsets, pa.array(sparse.ids)),
        pa.ListArray.from_arrays(offsets, pa.array(sparse.weights)),
    ]


def read_vectors(table: Any) -> tuple[DenseVectors, SparseVectors]:
    """Dense ``[n, d]`` and n sparse rows of a table that ``vector_arrays`` made."""
    dense = table.column("dense").combine_chunks()
    ids = table.column("sparse_ids").combine_chunks()
    weights = table.column("sparse_weights").combine_chunks()
    dims = table.schema.field("dense").type.list_size
    offsets = ids.offsets.to_numpy().astype(np.int64)
    sparse = SparseVectors(
        offsets - offsets[0],
        ids.flatten().to_numpy().astype(np.int32, copy=False),
        weights.flatten().to_numpy().astype(np.float32, copy=False),
        int(table.schema.metadata[VOCABULARY_KEY]),
    )
    vectors = dense.flatten().to_numpy().astype(np.float32, copy=False).reshape(-1, dims)
    return vectors, sparse
