"""Shards: Parquet files of encoded documents, written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steelyard.encoders.whole_file import whole_file
from steelyard.errors import InputError, needs_extra
from steelyard.indexer.encoding.vector_columns import (
    VOCABULARY_KEY,
    read_vectors,
    vector_arrays,
    vector_fields,
)
from steelyard.types import DenseVectors, Document, EncodedDocuments, SparseVectors

with needs_extra("index"):
    import pyarrow as pa
    import pyarrow.parquet as pq

_TEXT_COLUMNS = ("id", "parent_id", "title", "text")
_ARROW_TYPES = {
    "keyword": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
}


def write_shard(path: Path, content: EncodedDocuments, fields: Mapping[str, str]) -> None:
    """Write one shard: ids, texts, typed metadata (a struct column when declared), vectors."""
    columns = [pa.field(name, pa.string()) for name in _TEXT_COLUMNS]
    arrays: list[Any] = [
        pa.array([getattr(document, name) for document in content.documents], pa.string())
        for name in _TEXT_COLUMNS
    ]
    if fields:
        kind = pa.struct([pa.field(name, _ARROW_TYPES[of]) for name, of in fields.items()])
        columns.append(pa.field("metadata", kind))
        arrays.append(pa.array([dict(d.metadata) for d in content.documents], kind))
    columns += vector_fields(content.dense.shape[1])
    arrays += vector_arrays(content.dense, content.sparse)
    _write(path, columns, arrays, content.sparse.vocabulary_size)


def write_queries(path: Path, ids: list[str], dense: DenseVectors, sparse: SparseVectors) -> None:
    """Write encoded queries: id, dense, sparse_ids, sparse_weights."""
    columns = [pa.field("id", pa.string()), *vector_fields(dense.shape[1])]
    arrays = [pa.array(ids, pa.string()), *vector_arrays(dense, sparse)]
    _write(path, columns, arrays, sparse.vocabulary_size)


def read_shard(path: Path) -> EncodedDocuments:
    """Read one shard back.

    Raises:
        InputError: not a readable shard.
    """
    try:
        table = pq.read_table(path)
        dense, sparse = read_vectors(table)
        texts = [table.column(name).to_pylist() for name in _TEXT_COLUMNS]
        metadata = (
            table.column("metadata").to_pylist()
            if "metadata" in table.column_names
            else [{}] * table.num_rows
        )
    except (OSError, KeyError, ValueError, TypeError, pa.ArrowInvalid) as error:
        raise InputError(
            f"{path} is not a readable shard: {error}", "delete it and encode again"
        ) from error
    documents = [
        Document(
            identifier, text, title, parent, {k: v for k, v in values.items() if v is not None}
        )
        for identifier, parent, title, text, values in zip(*texts, metadata, strict=True)
    ]
    return EncodedDocuments(documents, dense, sparse)


def _write(path: Path, columns: list[Any], arrays: list[Any], vocabulary_size: int) -> None:
    schema = pa.schema(columns, metadata={VOCABULARY_KEY: str(vocabulary_size).encode()})
    table = pa.Table.from_arrays(arrays, schema=schema)
    # A dictionary of floats that are all different costs a sixth of the file, and four fifths of
    # the time to write it.
    repeated = ["sparse_ids.list.element", "sparse_weights.list.element"]
    for column in columns:
        if pa.types.is_struct(column.type):
            repeated += [f"{column.name}.{field.name}" for field in column.type]
    with whole_file(path) as stream:
        pq.write_table(
            table,
            stream,
            compression="zstd",
            use_dictionary=repeated,
            use_byte_stream_split=["dense.list.element"],
        )
