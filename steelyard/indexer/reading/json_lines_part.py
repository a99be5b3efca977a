"""JSON Lines: an object a line, UTF-8. Blank lines are no records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from steelyard.indexer.reading.json_lines import read_object
from steelyard.indexer.reading.parts import Row
from steelyard.indexer.reading.streams import TOO_LONG, RawLine, read_lines


class JsonLinesPart:
    """A file of JSON objects, one a line.

    Args:
        path: the file.
        name: within its corpus.
    """

    format, untyped = "jsonl", False

    def __init__(self, path: Path, name: str = "") -> None:
        self.path, self.name = path, name
        self.files: Sequence[Path] = [path]

    def count(self) -> int:
        """See ``Part``."""
        return sum(1 for _ in self._lines())

    def rows(self, fields: Mapping[str, str] | None = None) -> Iterator[Row]:
        """See ``Part``."""
        del fields
        for line in self._lines():
            if line.too_long:
                yield Row(line.number, None, TOO_LONG)
                continue
            try:
                yield Row(line.number, read_object(line.data))
            except ValueError as error:
                yield Row(line.number, None, str(error))

    def _lines(self) -> Iterator[RawLine]:
        return (line for line in read_lines(self.path) if line.too_long or line.data.strip())
