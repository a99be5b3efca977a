"""CSV records one by one: a broken one costs itself only.

A record whose quotes are broken (never closed, or closed in the middle of a field) is rejected
with the line it begins on, and reading goes on with the very next line: nothing that it would have
swallowed is lost.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from steelyard.indexer.reading.streams import MAX_LINE_BYTES, TOO_LONG, RawLine, read_lines

_TOO_LARGE = f"too large: a record of more than {MAX_LINE_BYTES:,} bytes, or a quote is not closed"


def csv_records(path: Path) -> Iterator[tuple[int, list[str] | None, str]]:
    """Line number, fields or None, and why there are none, for every record that is not blank."""
    # The limit is the process's; it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    lines = _Lines(read_lines(path))
    reader = csv.reader(lines, strict=True)
    while lines.begin():
        fields: list[str] | None
        try:
            fields, reason = next(reader), ""
        except StopIteration:
            return
        except (csv.Error, _TooLongError) as error:
            first = lines.put_back()
            yield first.number, None, TOO_LONG if first.too_long else _said(error)
            continue
        first = lines.taken[0]
        if not first.data.strip():
            continue
        try:
            for field in fields:
                field.encode()
        except UnicodeEncodeError:
            fields, reason = None, "not UTF-8"
        yield first.number, fields, reason


class _TooLongError(Exception):
    """A record of more bytes than are held."""


class _Lines:
    """Lines for a reader that may want some of them again.

    Attributes:
        taken: of the record that is being read.
    """

    def __init__(self, source: Iterator[RawLine]) -> None:
        self._source = source
        self._waiting: deque[RawLine] = deque()
        self._bytes = 0
        self.taken: list[RawLine] = []

    def begin(self) -> bool:
        """Start a record; whether there are lines left."""
        self.taken, self._bytes = [], 0
        if not self._waiting:
            following = next(self._source, None)
            if following is None:
                return False
            self._waiting.append(following)
        return True

    def put_back(self) -> RawLine:
        """Return all lines of the record but its first, which is given."""
        first, *others = self.taken
        self._waiting.extendleft(reversed(others))
        return first

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._waiting.popleft() if self._waiting else next(self._source)
        self.taken.append(line)
        self._bytes += len(line.data) + 1
        if line.too_long or self._bytes > MAX_LINE_BYTES:
            raise _TooLongError
        # Bytes that are not UTF-8 become lone surrogates, found when the record is complete.
        return line.data.decode(errors="surrogateescape") + "\n"


def _said(error: Exception) -> str:
    if isinstance(error, _TooLongError):
        return _TOO_LARGE
    if "unexpected end of data" in str(error):
        return "broken CSV: a quote is not closed"
    return f"broken CSV: {str(error)[:100]}"
