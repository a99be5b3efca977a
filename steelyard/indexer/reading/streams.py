"""Bytes of a file, unpacked by its name: ``.gz``, ``.zst``; and its lines, of bounded length."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from steelyard.errors import InputError, first_line, needs_extra

COMPRESSIONS = (".gz", ".zst")

MAX_LINE_BYTES = 16 * 2**20
"""Longest line that is held in memory: a document of a million bytes, every one escaped, fits."""

_BLOCK = 1 << 18


@dataclass(frozen=True, slots=True)
class RawLine:
    """One line as it stands in a file.

    Attributes:
        number: counts from 1.
        data: without its line end; empty when the line is too long.
        too_long: it has more bytes than are read.
    """

    number: int
    data: bytes
    too_long: bool = False


TOO_LONG = f"too large: a line of more than {MAX_LINE_BYTES:,} bytes"


def plain_name(name: str) -> str:
    """A file's name without ``.gz`` or ``.zst``."""
    for suffix in COMPRESSIONS:
        name = name.removesuffix(suffix)
    return name


def open_bytes(path: Path) -> BinaryIO:
    """The unpacked bytes of a file."""
    if path.suffix == ".gz":
        return cast("BinaryIO", gzip.open(path))
    if path.suffix == ".zst":
        with needs_extra("index"):
            import pyarrow as pa
        return cast("BinaryIO", pa.input_stream(str(path), compression="zstd"))
    return path.open("rb")


@contextmanager
def readable(path: Path | str) -> Iterator[None]:
    """What a file's bytes do wrong inside the block becomes an ``InputError``."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} cannot be read to its end: {first_line(error)}",
            "check that the file is complete",
        ) from error


def read_lines(path: Path, limit: int = MAX_LINE_BYTES) -> Iterator[RawLine]:
    """All lines of a file, numbered from 1, without line ends and byte order mark.

    A line longer than ``limit`` is passed over without being held.

    Raises:
        InputError: the file cannot be read to its end.
    """
    with readable(path), open_bytes(path) as stream:
        for number, data in enumerate(split_lines(stream, limit), start=1):
            if data is None:
                yield RawLine(number, b"", too_long=True)
            else:
                if number == 1:
                    data = data.removeprefix(codecs.BOM_UTF8)
                yield RawLine(number, data.rstrip(b"\r"))


def split_lines(stream: BinaryIO, limit: int = MAX_LINE_BYTES) -> Iterator[bytes | None]:
    """The lines of a stream without line feeds; None for one of more than ``limit`` bytes."""
    held: list[bytes] = []
    size = 0
    while block := stream.read(_BLOCK):
        first, *others = block.split(b"\n")
        size += len(first)
        # Pieces of a line that is too long already are let go.
        held = [*held, first] if size <= limit else []
        if not others:
            continue
        yield b"".join(held) if size <= limit else None
        for line in others[:-1]:
            yield line if len(line) <= limit else None
        size = len(others[-1])
        held = [others[-1]] if size <= limit else []
    if size:
        yield b"".join(held) if size <= limit else None
