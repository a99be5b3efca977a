"""When a generation was published, switched off and dropped: the record ``history-<name>``.

A generation that no record says was ever published, and that is not published now, is what a job
has begun: it is never rolled back to, and dropped when no job is alive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from steelyard.indexer.changes.positions import PREFIX as POSITION_PREFIX
from steelyard.indexer.changes.positions import forget_position, position_of, read_position
from steelyard.plugin.engine import Engine, Generation
from steelyard.plugin.records import ConflictError, RecordStore

PREFIX = "history-"
PUBLISHED, OFF, DROPPING = "published", "off", "dropping"
"""Notes: times, ISO 8601."""
DOCUMENTS = "documents"
"""A note: how many it had when it was published."""

_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Known:
    """A generation and what is known of it.

    Attributes:
        generation: as its engine describes it.
        current: the alias stands for it.
        notes: its record's value; empty when it has none.
        applied: number of the last change that it contains; None where nobody says.
    """

    generation: Generation
    current: bool
    notes: Mapping[str, Any]
    applied: int | None

    @property
    def name(self) -> str:
        """Its physical name."""
        return self.generation.name

    @property
    def kept(self) -> bool:
        """It was published before, and may be again."""
        was = PUBLISHED in self.notes and DROPPING not in self.notes
        return was and not self.current and not self.generation.columns

    @property
    def leftover(self) -> bool:
        """A job has begun it, or somebody has begun to drop it; never of an adopted index."""
        return not (self.current or self.kept or self.generation.columns)

    @property
    def off_since(self) -> datetime | None:
        """When the alias left it; None when it is not known to have."""
        return moment(self.notes.get(OFF))


def known(engine: Engine, store: RecordStore) -> list[Known]:
    """All generations, newest first."""
    generations = engine.generations()
    current = engine.resolve()
    name = None if current is None else current.name
    return [_known(store, generation, generation.name == name) for generation in generations]


def _known(store: RecordStore, generation: Generation, current: bool) -> Known:
    written = notes(store, generation.name)
    if current or PUBLISHED in written:
        applied: int | None = position_of(store, generation).applied
    else:
        position = read_position(store, generation.name)
        applied = None if position is None else position.applied
    return Known(generation, current, written, applied)


def latest_first(kept: Sequence[Known]) -> list[Known]:
    """What was searched last comes first; not what was made last, which may have been bad."""
    return sorted(kept, key=lambda one: (str(one.notes.get(OFF, "")), one.name), reverse=True)


def notes(store: RecordStore, name: str) -> Mapping[str, Any]:
    """What is written of a generation."""
    found = store.read(PREFIX + name)
    return {} if found is None else found.value


def note(
    store: RecordStore, name: str, changes: Mapping[str, Any], without: Sequence[str] = ()
) -> None:
    """Change some of what is written of a generation; the rest stays as it is.

    Raises:
        ConflictError: others change it all the time.
    """
    for _ in range(_ATTEMPTS):
        found = store.read(PREFIX + name)
        before = {} if found is None else dict(found.value)
        after = {k: v for k, v in {**before, **changes}.items() if k not in without}
        if found is not None and after == before:
            return
        try:
            store.write(PREFIX + name, after, expected=None if found is None else found.version)
        except ConflictError:
            continue
        return
    raise ConflictError(
        f"the record of {name} was changed by others {_ATTEMPTS} times",
        "run the same command again",
    )


def note_switches(store: RecordStore, all_known: Sequence[Known]) -> None:
    """Make notes say what the alias says: what is current, and since when the others are off.

    A process that was killed between the alias and its notes left that open. A generation of
    which it was not known is switched off from now on, so that it is never dropped too soon.
    """
    for one in all_known:
        if one.current and (PUBLISHED not in one.notes or OFF in one.notes):
            when = one.notes.get(PUBLISHED) or now_text()
            note(store, one.name, {PUBLISHED: when}, without=(OFF, DROPPING))
        elif not one.current and PUBLISHED in one.notes and one.off_since is None:
            note(store, one.name, {OFF: now_text()})


def forget(store: RecordStore, name: str) -> None:
    """Remove what is written of a generation that is gone; a conflict is somebody who did."""
    with suppress(ConflictError):
        forget_position(store, name)
    found = store.read(PREFIX + name)
    if found is not None:
        with suppress(ConflictError):
            store.remove(PREFIX + name, expected=found.version)


def names(store: RecordStore) -> set[str]:
    """Generations of which something is written."""
    prefixes, keys = (PREFIX, POSITION_PREFIX), store.keys()
    return {key.removeprefix(p) for key in keys for p in prefixes if key.startswith(p)}


def now_text() -> str:
    """The time, UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def moment(text: object) -> datetime | None:
    """A time that was written down; None if it is none."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)
