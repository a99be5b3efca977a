"""A sequenced log in files of some megabytes, named by the number of their first entry.

A line is ``<number> <crc32> <JSON>``. What a crash left of a last line is cut off by the next
writer and passed over by readers. Files of which all entries are trimmed are removed; ``trimmed``
says up to which number entries are forgotten.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steelyard.encoders.whole_file import whole_file
from steelyard.errors import EngineError
from steelyard.plugin.local_files import file_errors, fsync_folder
from steelyard.plugin.records import LogEntry

SEGMENT_BYTES = 4_000_000

_SUFFIX = ".log"
_TRIMMED = "trimmed"
_READINGS = 4


@dataclass(frozen=True, slots=True)
class _Tail:
    """The last file's end.

    Attributes:
        last: number of its last whole entry; one less than its name when it has none.
        length: bytes of its whole entries.
    """

    last: int
    length: int


class SegmentLog:
    """Entries numbered from 1 without gaps. Who appends or trims holds a lock.

    Args:
        folder: of the files; made by the first append.
        segment_bytes: a file that has reached this size is followed by the next.
    """

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder, self._segment_bytes = folder, segment_bytes
        self._seen: tuple[tuple[object, ...], _Tail] | None = None

    def append(self, values: Sequence[Mapping[str, Any]]) -> int:
        """Add entries; all are on the disk when this returns. The number of the last."""
        self._folder.mkdir(parents=True, exist_ok=True)
        number = self.last_sequence() + 1
        lines = [_line(number + i, value) for i, value in enumerate(values)]
        while lines:
            path, length = self._open_end(number)
            count, size = 0, length
            while count < len(lines) and (not count or size < self._segment_bytes):
                size += len(lines[count])
                count += 1
            _write_at(path, length, b"".join(lines[:count]))
            if not length:
                fsync_folder(self._folder)
            lines, number = lines[count:], number + count
        return number - 1

    def entries(self, after: int) -> Iterator[LogEntry]:
        """Entries with a greater number, ascending; one file is open at a time.

        Raises:
            EngineError: entries are missing or damaged, or were trimmed meanwhile.
        """
        wanted, stalled = max(after, self._trimmed()) + 1, False
        while True:
            starts = self._starts()
            first = max((start for start in starts if start <= wanted), default=None)
            if first is None:
                if starts:
                    raise self._damaged(f"entry {wanted} is missing")
                return
            begun = wanted
            try:
                for number, text, _ in self._whole_lines(first):
                    if number == wanted:
                        yield LogEntry(number, json.loads(text))
                        wanted += 1
            except FileNotFoundError:
                raise EngineError(
                    f"entry {wanted} of the log in {self._folder} was trimmed while the log was "
                    "read",
                    "run the command again",
                ) from None
            starts = self._starts()
            if first != wanted and wanted in starts:
                stalled = False
            elif any(start > wanted for start in starts):
                # Written since the file was read, or never there.
                if stalled:
                    raise self._damaged(f"entry {wanted} is missing")
                stalled = wanted == begun
            else:
                return

    def last_sequence(self) -> int:
        """Number of the newest entry, also when it was trimmed."""
        with file_errors(f"read the log in {self._folder}"):
            starts = self._starts()
            trimmed = self._trimmed()
            return max(trimmed, self._tail(starts[-1]).last) if starts else trimmed

    def first_sequence(self) -> int:
        """Number of the oldest entry that is kept; one more than the last when none is."""
        with file_errors(f"read the log in {self._folder}"):
            trimmed = self._trimmed()
            return max(trimmed + 1, min(self._starts(), default=trimmed + 1))

    def trim(self, through: int) -> int:
        """Forget entries up to and with this number; how many."""
        first, last = self.first_sequence(), self.last_sequence()
        through = min(through, last)
        if through < first:
            return 0
        with whole_file(self._folder / _TRIMMED) as stream:
            stream.write(b"%d\n" % through)
        fsync_folder(self._folder)
        starts = self._starts()
        for start, following in zip(starts, [*starts[1:], last + 1], strict=True):
            if following <= through + 1:
                self._file(start).unlink()
        fsync_folder(self._folder)
        return through - first + 1

    def _open_end(self, number: int) -> tuple[Path, int]:
        """The file that entry ``number`` goes into, and where in it."""
        starts = self._starts()
        if starts:
            tail = self._tail(starts[-1])
            # A file all of whose entries were trimmed may end before the next number.
            if tail.last + 1 == number and tail.length < self._segment_bytes:
                return self._file(starts[-1]), tail.length
        return self._file(number), 0

    def _tail(self, first: int) -> _Tail:
        """The end of the last file; read once for each state of the file."""
        path = self._file(first)
        state = path.stat()
        key = (path, state.st_ino, state.st_size)
        seen = self._seen
        if seen is not None and seen[0] == key:
            return seen[1]
        last, length = first - 1, 0
        for number, _, end in self._whole_lines(first):
            last, length = number, end
        tail = _Tail(last, length)
        # What is behind a torn line may be replaced by as many bytes.
        self._seen = (key, tail) if length == state.st_size else None
        return tail

    def _whole_lines(self, first: int) -> Iterator[tuple[int, bytes, int]]:
        """Number, JSON and end of each entry of a file, up to a last one that is torn."""
        number, end = first, 0
        for _ in range(_READINGS):
            with self._file(first).open("rb") as stream:
                stream.seek(end)
                for line in stream:
                    text = _read_line(line, number)
                    if text is None:
                        break
                    end += len(line)
                    yield number, text, end
                    number += 1
                else:
                    return
                if not any(_is_line(later) for later in stream):
                    return
            # Damaged; or a writer went on while this was read, which is read anew.
        raise self._damaged(f"entry {number} cannot be read")

    def _damaged(self, what: str) -> EngineError:
        return EngineError(
            f"the log of live changes in {self._folder} is damaged: {what}",
            "restore the folder from a copy, or index the corpus again under another name",
        )

    def _trimmed(self) -> int:
        with file_errors(f"read the log in {self._folder}"):
            try:
                return int((self._folder / _TRIMMED).read_bytes())
            except FileNotFoundError:
                return 0
            except ValueError:
                raise self._damaged(f"{_TRIMMED} holds no number") from None

    def _starts(self) -> list[int]:
        """Numbers of the files' first entries, ascending."""
        if not self._folder.is_dir():
            return []
        names = (path.name for path in self._folder.iterdir())
        stems = (name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))
        return sorted(int(stem) for stem in stems if stem.isdigit())

    def _file(self, first: int) -> Path:
        return self._folder / f"{first:020d}{_SUFFIX}"


def _line(number: int, value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode()
    return b"%d %08x %b\n" % (number, _checksum(number, text), text)


def _read_line(line: bytes, number: int) -> bytes | None:
    """The JSON of an entry; None for what is not this entry, whole."""
    parts = line.rstrip(b"\n").split(b" ", 2)
    if not line.endswith(b"\n") or len(parts) != 3 or parts[0] != b"%d" % number:
        return None
    return parts[2] if parts[1] == b"%08x" % _checksum(number, parts[2]) else None


def _is_line(line: bytes) -> bool:
    digits = line.split(b" ", 1)[0]
    return digits.isdigit() and _read_line(line, int(digits)) is not None


def _checksum(number: int, text: bytes) -> int:
    return zlib.crc32(text, number & 0xFFFFFFFF)


def _write_at(path: Path, place: int, data: bytes) -> None:
    """Write behind what is whole, over what a crash left; nothing stays of a write that fails."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.ftruncate(descriptor, place)
        os.lseek(descriptor, place, os.SEEK_SET)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, place)
            raise
    finally:
        os.close(descriptor)
