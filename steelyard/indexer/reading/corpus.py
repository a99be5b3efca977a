"""A corpus: files of records, looked over once and then read in order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from steelyard.encoders.pack.files import sha256_of
from steelyard.indexer.reading.mapping import FieldMapping
from steelyard.indexer.reading.parts import Part
from steelyard.indexer.reading.streams import readable


@dataclass(frozen=True, slots=True)
class Survey:
    """What a corpus is before it is read.

    Attributes:
        sha256: of all bytes, the files' names and formats, and the mapping of fields.
        records: how many, good or bad.
        modified: when its newest file was changed, in seconds since 1970.
        files: number of files.
        bytes: of all files.
    """

    sha256: str
    records: int
    modified: float
    files: int
    bytes: int


class Record(NamedTuple):
    """One record, or why it cannot be read.

    Attributes:
        file: its name within the corpus; empty when that is one file.
        line: where it begins, from 1: a line of a text file, a row of a table.
        value: its fields; None when it cannot be read.
        reason: why not.
        untyped: all values are texts, so that declared ones are to be converted.
    """

    file: str
    line: int
    value: Mapping[str, Any] | None
    reason: str = ""
    untyped: bool = False


class Corpus:
    """Where documents come from; ``open_corpus`` makes it.

    Args:
        path: as it was given, for messages.
        parts: its files, in order.
        mapping: which fields of a record make a document.
    """

    def __init__(self, path: Path, parts: Sequence[Part], mapping: FieldMapping) -> None:
        self.path, self.parts, self.mapping = path, parts, mapping

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.name

    def survey(self) -> Survey:
        """Look over all of it: two passes over the bytes, nothing is parsed that need not be.

        Raises:
            InputError: something cannot be read, or lacks a column that is needed.
        """
        listed, size, files = [], 0, 0
        for part in self.parts:
            with readable(part.name or self.path):
                hashes = [sha256_of(file) for file in part.files]
                stats = [file.stat() for file in part.files]
            listed.append([part.name, part.format, *hashes])
            size += sum(stat.st_size for stat in stats)
            files += len(stats)
        content = {"files": listed, "mapping": self.mapping.to_json()}
        records = sum(part.count() for part in self.parts)
        return Survey(_sha256(content), records, self._newest(), files, size)

    def modified(self) -> datetime:
        """When its newest file was changed."""
        return datetime.fromtimestamp(self._newest(), timezone.utc)

    def _newest(self) -> float:
        newest = 0.0
        for part in self.parts:
            with readable(part.name or self.path):
                newest = max([newest, *(file.stat().st_mtime for file in part.files)])
        return newest

    def records(self, fields: Mapping[str, str] | None = None) -> Iterator[Record]:
        """All records in order, one file after the other.

        Args:
            fields: declared metadata fields, so that columns without use are not read; None reads
                all columns.

        Raises:
            InputError: a file cannot be read to its end.
        """
        for part in self.parts:
            name, untyped = part.name, part.untyped
            for line, value, reason in part.rows(fields):
                yield Record(name, line, value, reason, untyped)


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
