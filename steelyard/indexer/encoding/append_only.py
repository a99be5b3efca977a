"""A file of lines that only grows, each line safely on disk before the next step."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from steelyard.encoders.whole_file import whole_file
from steelyard.indexer.encoding.storage import storing


def read_lines(path: Path) -> list[bytes]:
    """The whole lines of a file; what a kill has torn off at its end is cut away."""
    if not path.exists():
        return []
    *lines, torn = path.read_bytes().split(b"\n")
    if torn:
        rewrite(path, lines)
    return lines


def append_line(path: Path, line: str) -> None:
    """Add one line; it is on disk when this returns.

    Raises:
        StorageError: the disk is full, or the folder cannot be written.
    """
    with storing(path), path.open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def rewrite(path: Path, lines: Iterable[bytes]) -> None:
    """Replace the file by these lines, in one step."""
    with storing(path), whole_file(path) as stream:
        for line in lines:
            stream.write(line + b"\n")
