"""TSV and CSV: a header with names, then a record a row; all values are texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from steelyard.errors import InputError
from steelyard.indexer.reading.csv_records import csv_records
from steelyard.indexer.reading.mapping import FieldMapping
from steelyard.indexer.reading.parts import Row
from steelyard.indexer.reading.streams import TOO_LONG, read_lines

Values = tuple[int, list[str] | None, str]
"""Line, fields, and why there are none."""


class DelimitedPart:
    """A file of rows.

    Args:
        path: the file.
        name: within its corpus.
        format: ``csv``: quoted fields may hold commas, quotes and line ends; ``tsv``: a line is a
            row, and quotes mean nothing.
        mapping: with numbers for names where the file has no header.
    """

    untyped = True

    def __init__(self, path: Path, name: str, format: str, mapping: FieldMapping) -> None:
        self.path, self.name, self.format = path, name, format
        self.files: Sequence[Path] = [path]
        self._mapping = mapping

    def count(self) -> int:
        """See ``Part``."""
        return sum(1 for _ in self.rows())

    def rows(self, fields: Mapping[str, str] | None = None) -> Iterator[Row]:
        """See ``Part``."""
        del fields
        names: list[str] | None = None
        for line, values, reason in self._values():
            if names is None:
                names = self._header(line, values, reason)
                if not self._mapping.headerless:
                    continue
            if values is None:
                yield Row(line, None, reason)
            elif len(values) != len(names):
                of = "the first row" if self._mapping.headerless else "the header"
                yield Row(line, None, f"{len(values)} fields, {of} has {len(names)}")
            else:
                yield Row(line, dict(zip(names, values, strict=True)))

    def _values(self) -> Iterator[Values]:
        if self.format == "csv":
            return csv_records(self.path)
        return _tab_separated(self.path)

    def _header(self, line: int, values: list[str] | None, reason: str) -> list[str]:
        if values is None:
            raise InputError(f"{self.path}, line {line}: no header: {reason}", "mend the file")
        if self._mapping.headerless:
            names = [str(number) for number in range(1, len(values) + 1)]
        else:
            names = [value.strip() for value in values]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise InputError(
                f"{self.path} has the column {doubled[0]!r} twice", "give each its own name"
            )
        self._mapping.check_columns(names, str(self.path))
        return names


def _tab_separated(path: Path) -> Iterator[Values]:
    for line in read_lines(path):
        if line.too_long:
            yield line.number, None, TOO_LONG
        elif line.data.strip():
            try:
                yield line.number, line.data.decode().split("\t"), ""
            except UnicodeDecodeError as error:
                yield line.number, None, f"not UTF-8 at byte {error.start}"
