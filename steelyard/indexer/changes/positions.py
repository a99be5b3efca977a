"""How far into the log each generation is: what it contains, and what it still lacks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone

from steelyard.errors import EngineError
from steelyard.indexer.changes.log import sequence_at
from steelyard.plugin.engine import Generation
from steelyard.plugin.records import RecordStore

PREFIX = "generation-"
_CREATED = re.compile(r"_(\d{14})_[0-9a-f]{8}$")


@dataclass(frozen=True, slots=True)
class Position:
    """Of one generation.

    Attributes:
        applied: number of the last entry of the log that it contains; it contains all before.
        pack_id: the pack it was made with.
        snapshot: when its corpus was taken, ISO 8601; empty where nobody said.
        version: of the record, for the next change; None: there is none yet.
    """

    applied: int
    pack_id: str
    snapshot: str = ""
    version: str | None = None


def read_position(store: RecordStore, generation: str) -> Position | None:
    """As it is recorded; None when it is not.

    Args:
        store: of the alias.
        generation: its name.
    """
    record = store.read(PREFIX + generation)
    if record is None:
        return None
    value = record.value
    try:
        applied = int(value["applied"])
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError(
            f"the record of {generation} in {store.where} says of no entry that it was applied",
            "index the corpus again",
        ) from error
    return Position(
        applied, str(value.get("pack_id", "")), str(value.get("snapshot", "")), record.version
    )


def position_of(store: RecordStore, generation: Generation) -> Position:
    """As it is recorded, else what its name says of the time at which it was begun.

    A generation that was published by an older version has no record: what was logged after it
    was begun is taken to be missing in it.
    """
    found = read_position(store, generation.name)
    if found is not None:
        return found
    moment, applied = begun_at(generation), 0
    if moment is not None and store.last_sequence():
        applied = sequence_at(store, moment)
    return Position(applied, generation.pack_id)


def begun_at(generation: Generation) -> datetime | None:
    """When its job began, as its name says; None: it has no name of ours."""
    created = _CREATED.search(generation.name)
    if created is None:
        return None
    return datetime.strptime(created[1], "%Y%m%d%H%M%S").replace(tzinfo=timezone.utc)


def write_position(
    store: RecordStore, generation: Generation, applied: int, *, snapshot: str | None = None
) -> Position:
    """Record how far a generation is; the caller holds the write lease.

    Args:
        store: of the alias.
        generation: which.
        applied: number of the last entry that it contains.
        snapshot: when its corpus was taken; None leaves what is recorded.
    """
    found = read_position(store, generation.name)
    kept = "" if found is None else found.snapshot
    position = Position(
        applied,
        generation.pack_id,
        kept if snapshot is None else snapshot,
        None if found is None else found.version,
    )
    return _written(store, generation.name, position)


def advance(
    store: RecordStore, generation: Generation, position: Position, applied: int
) -> Position:
    """Record that a generation contains the log up to an entry.

    Args:
        store: of the alias.
        generation: which.
        position: as it was read under the write lease that the caller holds.
        applied: number of the last entry that it contains now.

    Raises:
        ConflictError: someone else has changed it since: the lease was lost.
    """
    moved = Position(applied, generation.pack_id, position.snapshot, position.version)
    return _written(store, generation.name, moved)


def forget_position(store: RecordStore, generation: str) -> None:
    """Of a generation that was dropped."""
    found = read_position(store, generation)
    if found is not None and found.version is not None:
        store.remove(PREFIX + generation, expected=found.version)


def _written(store: RecordStore, generation: str, position: Position) -> Position:
    value = {
        "applied": position.applied,
        "pack_id": position.pack_id,
        "snapshot": position.snapshot,
    }
    record = store.write(PREFIX + generation, value, expected=position.version)
    return Position(position.applied, position.pack_id, position.snapshot, record.version)
