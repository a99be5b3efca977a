"""Records and the log of one alias in a folder of this machine.

::

    .lock                       held by a process while it changes anything
    records/KEY.json            a value and its version, replaced whole
    log/                        see ``segment_log``

Readers need no lock: a record is replaced in one step, and the log only grows at its end.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from steelyard.encoders.folder_lock import locked_file
from steelyard.encoders.whole_file import whole_file
from steelyard.errors import EngineError, InputError
from steelyard.plugin.local_files import file_errors, fsync_folder
from steelyard.plugin.records import ConflictError, LogEntry, Record
from steelyard.plugin.segment_log import SEGMENT_BYTES, SegmentLog

_KEY = re.compile(r"[A-Za-z0-9_.-]{1,200}")
_SUFFIX = ".json"


class FolderRecords:
    """The ``RecordStore`` of an engine that keeps no records itself.

    Processes and threads of this machine exclude each other by a file lock. Another machine sees
    nothing of it.

    Args:
        folder: made by the first call that writes.
        segment_bytes: about the size of a file of the log.
    """

    shared = False

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = folder
        self._records = folder / "records"
        self._log = SegmentLog(folder / "log", segment_bytes)

    @property
    def where(self) -> str:
        """The folder."""
        return str(self.folder)

    def read(self, key: str) -> Record | None:
        """A record as it is now; None when there is none."""
        path = self._path(key)
        with file_errors(f"read {path}"):
            try:
                text = path.read_bytes()
            except FileNotFoundError:
                return None
        try:
            found = json.loads(text)
            return Record(dict(found["value"]), str(found["version"]))
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(
                f"{path} is damaged: {error}", "remove the file, and run the command again"
            ) from error

    def write(self, key: str, value: Mapping[str, Any], *, expected: str | None) -> Record:
        """Write a record if nobody else has: see ``RecordStore``."""
        path = self._path(key)
        record = Record(dict(value), secrets.token_hex(8))
        text = json.dumps({"version": record.version, "value": record.value}, ensure_ascii=True)
        with self._changing(f"write {path}"):
            self._check(key, expected)
            with whole_file(path) as stream:
                stream.write(text.encode() + b"\n")
            fsync_folder(self._records)
        return record

    def remove(self, key: str, *, expected: str) -> None:
        """Remove a record: see ``RecordStore``."""
        path = self._path(key)
        with self._changing(f"remove {path}"):
            self._check(key, expected)
            path.unlink()
            fsync_folder(self._records)

    def keys(self) -> list[str]:
        """Keys of all records, ascending."""
        with file_errors(f"list {self._records}"):
            if not self._records.is_dir():
                return []
            names = [path.name for path in self._records.iterdir()]
        return sorted(n.removesuffix(_SUFFIX) for n in names if n.endswith(_SUFFIX))

    def append(self, values: Sequence[Mapping[str, Any]]) -> int:
        """Add entries to the log; the sequence number of the last one."""
        if not values:
            return self.last_sequence()
        with self._changing(f"write to the log in {self.folder}"):
            return self._log.append(values)

    def entries(self, after: int) -> Iterator[LogEntry]:
        """Entries with a greater sequence number, read as they are asked for."""
        return self._log.entries(after)

    def last_sequence(self) -> int:
        """Number of the newest entry; 0 when there never was one."""
        return self._log.last_sequence()

    def first_sequence(self) -> int:
        """Number of the oldest entry that is kept."""
        return self._log.first_sequence()

    def trim(self, through: int) -> int:
        """Forget entries up to and with this number; how many."""
        with self._changing(f"trim the log in {self.folder}"):
            return self._log.trim(through)

    def _check(self, key: str, expected: str | None) -> None:
        found = self.read(key)
        version = None if found is None else found.version
        if version != expected:
            was = "there already" if expected is None else "changed or gone since it was read"
            raise ConflictError(f"the record {key!r} in {self.folder} is {was}", "read it again")

    @contextmanager
    def _changing(self, action: str) -> Iterator[None]:
        with file_errors(action):
            self._records.mkdir(parents=True, exist_ok=True)
            with locked_file(self.folder / ".lock", wait=True):
                yield

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise InputError(
                f"{key!r:.100} cannot name a record", "use letters, digits, '_', '-' and '.'"
            )
        return self._records / f"{key}{_SUFFIX}"
