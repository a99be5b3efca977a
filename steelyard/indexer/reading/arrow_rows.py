"""Batches of Arrow columns to rows. A value that cannot be read costs its own row only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from steelyard.errors import needs_extra
from steelyard.indexer.reading.mapping import FieldMapping
from steelyard.indexer.reading.parts import Row
from steelyard.indexer.reading.streams import MAX_LINE_BYTES

with needs_extra("index"):
    import pyarrow as pa
    import pyarrow.compute as pc

BATCH_ROWS = 128
"""Rows held at a time: few, as one may hold megabytes."""


def wanted_columns(
    names: list[str], mapping: FieldMapping, fields: Mapping[str, str] | None
) -> list[str]:
    """The columns of a table that documents may need; all of them when ``fields`` is None."""
    if fields is None:
        return names
    wanted = mapping.columns(fields)
    return [name for name in names if name in wanted]


def batch_rows(batch: Any, first: int) -> Iterator[Row]:
    """The rows of a ``RecordBatch``, numbered from ``first``."""
    bad: dict[int, str] = {}
    columns = [
        _values(name, column, bad)
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    names = batch.schema.names
    for row in range(batch.num_rows):
        if row in bad:
            yield Row(first + row, None, bad[row])
        else:
            yield Row(
                first + row,
                {name: values[row] for name, values in zip(names, columns, strict=True)},
            )


def _values(name: str, column: Any, bad: dict[int, str]) -> Sequence[Any]:
    """A column's values; rows of those that cannot be read are noted in ``bad``."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        sizes = pc.binary_length(column)
        if (pc.max(sizes).as_py() or 0) > MAX_LINE_BYTES:
            for row in pc.indices_nonzero(pc.greater(sizes, MAX_LINE_BYTES)).to_pylist():
                bad[row] = f"too large: {name} of {sizes[row].as_py():,} bytes"
            column = pc.if_else(pc.greater(sizes, MAX_LINE_BYTES), None, column)
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError):
        values = [_value(name, column, row, bad) for row in range(len(column))]
    return values


def _value(name: str, column: Any, row: int, bad: dict[int, str]) -> Any:
    try:
        return column[row].as_py()
    except UnicodeDecodeError as error:
        bad[row] = f"{name} is not UTF-8 at byte {error.start}"
    except (ValueError, OverflowError) as error:
        bad[row] = f"{name} cannot be read: {str(error)[:100]}"
    return None
