"""Parquet, a few rows at a time: memory does not grow with the file or its row groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from steelyard.errors import InputError, first_line, needs_extra
from steelyard.indexer.reading.arrow_rows import BATCH_ROWS, batch_rows, wanted_columns
from steelyard.indexer.reading.mapping import FieldMapping
from steelyard.indexer.reading.parts import Row

with needs_extra("index"):
    import pyarrow as pa
    import pyarrow.parquet as pq

_BUFFER = 1 << 20


class ParquetPart:
    """A Parquet file; only the columns that may be needed are read.

    Args:
        path: the file.
        name: within its corpus.
        mapping: which columns.
    """

    format, untyped = "parquet", False

    def __init__(self, path: Path, name: str, mapping: FieldMapping) -> None:
        self.path, self.name = path, name
        self.files: Sequence[Path] = [path]
        self._mapping = mapping

    def count(self) -> int:
        """See ``Part``."""
        with self._open() as file:
            self._mapping.check_columns(list(file.schema_arrow.names), str(self.path))
            return int(file.metadata.num_rows)

    def rows(self, fields: Mapping[str, str] | None = None) -> Iterator[Row]:
        """See ``Part``."""
        with self._open() as file:
            names = list(file.schema_arrow.names)
            self._mapping.check_columns(names, str(self.path))
            number = 1
            try:
                for batch in file.iter_batches(
                    BATCH_ROWS,
                    columns=wanted_columns(names, self._mapping, fields),
                    use_threads=False,
                ):
                    yield from batch_rows(batch, number)
                    number += batch.num_rows
            except (OSError, pa.ArrowException) as error:
                raise self._unreadable(error) from error

    def _open(self) -> Any:
        try:
            return pq.ParquetFile(self.path, pre_buffer=False, buffer_size=_BUFFER)
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> InputError:
        return InputError(
            f"{self.path} cannot be read to its end: {first_line(error)}",
            "check that the file is complete",
        )
