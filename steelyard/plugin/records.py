"""What jobs and live changes write down about an index, beside it: leases, positions, the log.

A record is a small JSON value under a key, changed by compare-and-set. The log is a sequence of
JSON entries, numbered from 1 without gaps. Both belong to one alias, not to a generation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from steelyard.errors import EngineError


@dataclass(frozen=True, slots=True)
class Record:
    """A value as it was read.

    Attributes:
        value: a JSON object.
        version: changes with every write; what compare-and-set compares.
    """

    value: Mapping[str, Any]
    version: str


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One entry of the log.

    Attributes:
        sequence: its number.
        value: a JSON object.
    """

    sequence: int
    value: Mapping[str, Any]


class ConflictError(EngineError):
    """A record was changed by someone else since it was read."""


class RecordStore(Protocol):
    """The records and the log of one alias."""

    @property
    def shared(self) -> bool:
        """Every machine that reaches the engine sees them; False: this machine alone."""

    @property
    def where(self) -> str:
        """The place, for messages; without credentials."""

    def read(self, key: str) -> Record | None:
        """A record as it is now, not as it was some seconds ago; None when there is none."""

    def write(self, key: str, value: Mapping[str, Any], *, expected: str | None) -> Record:
        """Write a record if nobody else has.

        Args:
            key: letters, digits, ``_``, ``-`` and ``.``.
            value: a JSON object.
            expected: version that it was read at; None: there is none yet.

        Raises:
            ConflictError: it has another version, or there is one already.
        """

    def remove(self, key: str, *, expected: str) -> None:
        """Remove a record.

        Raises:
            ConflictError: it has another version, or is gone.
        """

    def keys(self) -> list[str]:
        """Keys of all records, ascending."""

    def append(self, values: Sequence[Mapping[str, Any]]) -> int:
        """Add entries to the log, in order; all are durable when this returns.

        One writer at a time: the caller holds a lease. A writer whose lease has run out and that
        still writes meets ``ConflictError``, or finds its entries behind the other's; never does
        one entry replace another.

        Returns:
            The sequence number of the last one.
        """

    def entries(self, after: int) -> Iterator[LogEntry]:
        """Entries with a sequence number greater than ``after``, ascending."""

    def last_sequence(self) -> int:
        """Number of the newest entry, also when it was trimmed; 0 when there never was one."""

    def first_sequence(self) -> int:
        """Number of the oldest entry that is kept; ``last_sequence() + 1`` when none is."""

    def trim(self, through: int) -> int:
        """Forget entries up to and with this number; how many."""


@runtime_checkable
class KeepsRecords(Protocol):
    """An engine that keeps records by itself, for every machine that reaches it."""

    def records(self) -> RecordStore:
        """Of this engine's alias."""
