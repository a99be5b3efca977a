"""How an index stands: generations, counts, and what is written down beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from steelyard.errors import SteelyardError
from steelyard.indexer.generations.history import PREFIX, PUBLISHED
from steelyard.indexer.records_place import records_of
from steelyard.plugin.engine import Engine, Generation


@dataclass(frozen=True, slots=True)
class GenerationStatus:
    """One generation.

    Attributes:
        count: its documents; None when it cannot be counted.
        published: the alias stands for it.
    """

    name: str
    pack_id: str
    count: int | None
    published: bool


@dataclass(frozen=True, slots=True)
class RecordsStatus:
    """What is written down beside an index.

    Attributes:
        where: the place.
        shared: every machine sees it.
        records: by key: leases, positions of generations.
        first_sequence, last_sequence: of the log of live changes.
    """

    where: str
    shared: bool
    records: dict[str, Mapping[str, Any]]
    first_sequence: int
    last_sequence: int

    def position(self, generation: str) -> int | None:
        """The last change that a generation has; None when nobody wrote it down."""
        value = self.records.get(f"generation-{generation}", {}).get("applied")
        return value if isinstance(value, int) else None

    def was_published(self, generation: str) -> bool:
        """The alias stood for it at some time."""
        return PUBLISHED in self.records.get(f"{PREFIX}{generation}", {})


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """Everything about one index.

    Attributes:
        generations: newest first.
        records: what is kept beside it.
        missing: what is not as it should be, in words.
    """

    alias: str
    generations: list[GenerationStatus]
    records: RecordsStatus
    missing: list[str]

    @property
    def current(self) -> GenerationStatus | None:
        """The published one."""
        return next((one for one in self.generations if one.published), None)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def index_status(engine: Engine, url: str) -> IndexStatus:
    """Look at an index; nothing is changed.

    Args:
        engine: open.
        url: of it: where records are kept if the engine keeps none.

    Raises:
        EngineError: it cannot be asked.
    """
    current = engine.resolve()
    found = engine.generations()
    if current is not None and all(each.name != current.name for each in found):
        found = [current, *found]
    generations = [
        GenerationStatus(
            each.name,
            each.pack_id,
            _count(engine, each),
            current is not None and each.name == current.name,
        )
        for each in found
    ]
    records = _records(engine, url)
    return IndexStatus(
        engine.alias, generations, records, _missing(engine.alias, generations, records)
    )


def _count(engine: Engine, generation: Generation) -> int | None:
    with contextlib.suppress(SteelyardError):
        return engine.open(generation).count()
    return None


def _records(engine: Engine, url: str) -> RecordsStatus:
    store = records_of(engine, url)
    keys = store.keys()
    records = {key: record.value for key in keys if (record := store.read(key)) is not None}
    return RecordsStatus(
        store.where, store.shared, records, store.first_sequence(), store.last_sequence()
    )


def _missing(alias: str, generations: list[GenerationStatus], records: RecordsStatus) -> list[str]:
    found = []
    current = next((one for one in generations if one.published), None)
    if current is None:
        found.append(f"nothing is published under {alias}: run 'steelyard index' or 'load'")
    found += [
        f"{one.name} is newer than what is published: a job builds it, or it was left behind "
        "(the job's own command goes on, with --abort it is dropped)"
        for one in generations
        if not one.published
        and (current is None or one.name > current.name)
        and not records.was_published(one.name)  # it was gone back from
    ]
    if current is not None:
        applied = records.position(current.name)
        if applied is not None and applied < records.last_sequence:
            found.append(
                f"{records.last_sequence - applied:,} live changes are in the log that "
                f"{current.name} does not have: the next 'steelyard upsert' or job brings them"
            )
    return found
