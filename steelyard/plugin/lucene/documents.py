"""Documents in Arrow files that are mapped into memory, so that one is read without the others."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.whole_file import whole_file
from steelyard.errors import EngineError, needs_extra
from steelyard.plugin.engine import Generation
from steelyard.types import DenseVectors, Document, EncodedDocuments, MetadataValue, SparseVectors

with needs_extra("lucene"):
    import pyarrow as pa

METADATA_PREFIX = "m_"
"""Metadata columns are prefixed, so that a field may be called ``id`` or ``text``."""

_ROWS = 4096
_TEXT_COLUMNS = ("id", "parent_id", "title", "text")
_TYPES = {
    "keyword": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
}


@contextmanager
def document_file(path: Path, generation: Generation) -> Iterator[Any]:
    """A writer of batches without dense vectors; the file is there if the block ends well."""
    with whole_file(path) as stream, pa.ipc.new_file(stream, _schema(generation)) as writer:
        yield writer


def write_part(path: Path, generation: Generation, content: EncodedDocuments) -> None:
    """Documents with their vectors, as they were written.

    Args:
        content: ``sparse`` as impacts.
    """
    dense = pa.list_(pa.float32(), generation.dims)
    schema = _schema(generation).append(pa.field("dense", dense))
    with whole_file(path) as stream, pa.ipc.new_file(stream, schema) as writer:
        for first in range(0, len(content), _ROWS):
            last = min(first + _ROWS, len(content))
            documents = content.documents[first:last]
            vectors = np.ascontiguousarray(content.dense[first:last], dtype=np.float32)
            arrays = [
                *_columns(generation, documents),
                *_terms(content.sparse, first, last),
                pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), type=dense),
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))


class DocumentFile:
    """The documents of one file by their row.

    Args:
        path: what ``document_file`` or ``write_part`` wrote.

    Raises:
        EngineError: it is damaged.
        FileNotFoundError: it is gone.
    """

    def __init__(self, path: Path) -> None:
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            self.batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowInvalid) as error:
            raise EngineError(f"{path} is damaged: {error}", "index the corpus again") from error
        self._starts: list[int] = [0, *accumulate(batch.num_rows for batch in self.batches)]

    def __len__(self) -> int:
        return self._starts[-1]

    def column(self, name: str) -> list[Any]:
        """The values of all documents."""
        return [value for batch in self.batches for value in batch.column(name).to_pylist()]

    def metadata(self, field: str) -> list[MetadataValue]:
        """A declared field of all documents."""
        return self.column(METADATA_PREFIX + field)

    def document(self, row: int, fields: Mapping[str, str]) -> Document:
        """One document with its declared metadata."""
        batch, place = self._find(row)
        identifier, parent, title, text = (
            batch.column(name)[place].as_py() for name in _TEXT_COLUMNS
        )
        values = ((name, batch.column(METADATA_PREFIX + name)[place].as_py()) for name in fields)
        metadata = {name: value for name, value in values if value is not None}
        return Document(identifier, text, title, parent, metadata)

    def impacts(self, row: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Token ids and impacts of one document."""
        batch, place = self._find(row)
        starts, terms, impacts = batch_terms(batch.slice(place, 1))
        del starts
        return terms, impacts.astype(np.float32)

    def sparse(self, vocabulary_size: int) -> SparseVectors:
        """The impacts of all documents."""
        parts = [batch_terms(batch) for batch in self.batches]
        lengths = np.concatenate([np.zeros(1, np.int64), *(np.diff(p[0]) for p in parts)])
        return SparseVectors(
            np.cumsum(lengths),
            np.concatenate([np.zeros(0, np.int32), *(p[1] for p in parts)]),
            np.concatenate([np.zeros(0, np.float32), *(p[2] for p in parts)]).astype(np.float32),
            vocabulary_size,
        )

    def _find(self, row: int) -> tuple[Any, int]:
        number = bisect_right(self._starts, row) - 1
        return self.batches[number], row - self._starts[number]


def batch_terms(batch: Any) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """The terms of n documents: starts int64 ``[n + 1]``, token ids, integer impacts."""
    lists = batch.column("terms")
    starts = np.concatenate([[0], np.cumsum(lists.value_lengths().to_numpy())]).astype(np.int64)
    terms = lists.flatten().to_numpy().astype(np.int32)
    impacts = batch.column("impacts").flatten().to_numpy().astype(np.int32)
    return starts, terms, impacts


def batch_dense(batch: Any, dims: int) -> DenseVectors:
    """The dense vectors of n documents of a part, float32 ``[n, d]``."""
    vectors: DenseVectors = batch.column("dense").flatten().to_numpy().reshape(-1, dims)
    return vectors


def in_order(batch: Any, generation: Generation) -> Any:
    """A batch with its columns as this generation's description names the fields.

    A description that was read back has them in another order than one that was just made.
    """
    return batch.select(_schema(generation).names)


def _schema(generation: Generation) -> Any:
    return pa.schema(
        [
            *((name, pa.string()) for name in _TEXT_COLUMNS),
            *((METADATA_PREFIX + name, _TYPES[kind]) for name, kind in generation.fields.items()),
            ("terms", pa.list_(pa.int32())),
            ("impacts", pa.list_(pa.uint16())),
        ]
    )


def _columns(generation: Generation, documents: Sequence[Document]) -> list[Any]:
    return [
        pa.array([document.id for document in documents], pa.string()),
        pa.array([document.parent_id or document.id for document in documents], pa.string()),
        pa.array([document.title for document in documents], pa.string()),
        pa.array([document.text for document in documents], pa.string()),
        *(
            pa.array([document.metadata.get(name) for document in documents], _TYPES[kind])
            for name, kind in generation.fields.items()
        ),
    ]


def _terms(sparse: SparseVectors, first: int, last: int) -> list[Any]:
    bounds = sparse.indptr[first : last + 1]
    span = slice(int(bounds[0]), int(bounds[-1]))
    starts = pa.array((bounds - bounds[0]).astype(np.int32))
    return [
        pa.ListArray.from_arrays(starts, pa.array(sparse.ids[span].astype(np.int32))),
        pa.ListArray.from_arrays(starts, pa.array(sparse.weights[span].astype(np.uint16))),
    ]
