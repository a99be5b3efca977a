"""From files to raw lines: BEIR folders and JSON Lines, plain or gzipped."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from steelyard.errors import InputError

_CORPUS_NAMES = ("corpus.jsonl", "corpus.jsonl.gz")


@dataclass(frozen=True, slots=True)
class RawLine:
    """One line as it stands in a file; ``number`` counts from 1."""

    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class CorpusFile:
    """A file of documents, one JSON object a line."""

    path: Path

    def lines(self) -> Iterator[RawLine]:
        """Every line that is not blank.

        Raises:
            InputError: the file cannot be read to its end.
        """
        return (line for line in read_lines(self.path) if line.data.strip())

    def survey(self) -> tuple[str, int]:
        """SHA-256 of the file's bytes, and the number of lines that are not blank."""
        digest = hashlib.sha256()
        with self.path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        return digest.hexdigest(), sum(1 for _ in self.lines())


def open_corpus(path: Path) -> CorpusFile:
    """A BEIR folder (its corpus.jsonl or corpus.jsonl.gz) or a JSONL file.

    Raises:
        InputError: nothing there to read.
    """
    if path.is_dir():
        for name in _CORPUS_NAMES:
            if (path / name).is_file():
                return CorpusFile(path / name)
        raise InputError(
            f"{path} holds no corpus", f"a BEIR folder has {' or '.join(_CORPUS_NAMES)}"
        )
    if not path.is_file():
        raise InputError(f"no corpus at {path}", "give a BEIR folder or a .jsonl[.gz] file")
    return CorpusFile(path)


def read_lines(path: Path) -> Iterator[RawLine]:
    """Lines of a plain or gzipped file, numbered from 1, without their line ends."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            for number, data in enumerate(stream, start=1):
                if number == 1:
                    data = data.removeprefix(codecs.BOM_UTF8)
                yield RawLine(number, data.rstrip(b"\r\n"))
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} cannot be read to its end: {error}", "check that the file is complete"
        ) from error
