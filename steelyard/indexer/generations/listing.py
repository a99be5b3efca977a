"""All generations of an alias in words."""

from __future__ import annotations

from dataclasses import dataclass

from steelyard.indexer.generations.history import (
    DOCUMENTS,
    DROPPING,
    OFF,
    PUBLISHED,
    Known,
    known,
)
from steelyard.indexer.lease import JOB, holder_of
from steelyard.plugin.engine import Engine
from steelyard.plugin.records import RecordStore


@dataclass(frozen=True, slots=True)
class Listed:
    """One generation.

    Attributes:
        name: physical name.
        state: ``current``; ``kept``: can be rolled back to; ``unfinished``: a job that runs, or
            one that died, has begun it; ``dropping``: half gone; ``adopted``.
        documents: of the current one the engine's count, else the count when it was published.
        pack, dense_space, sparse_space: what it was made with.
        applied: number of the last change that it contains; None: not known.
        behind: changes in the log that it lacks; None: not known.
        published, off: when; empty: never.
    """

    name: str
    state: str
    documents: int | None
    pack: str
    dense_space: str
    sparse_space: str
    applied: int | None
    behind: int | None
    published: str
    off: str


def listing(engine: Engine, store: RecordStore) -> list[Listed]:
    """All generations, newest first. Changes nothing."""
    last = store.last_sequence()
    return [_listed(one, engine, last) for one in known(engine, store)]


def job_of(store: RecordStore) -> str:
    """Who holds the job lease, in words; empty: nobody."""
    found = holder_of(store, JOB)
    return "" if found is None else f"{found}, runs out at {found.runs_out} unless renewed"


def _listed(one: Known, engine: Engine, last: int) -> Listed:
    generation = one.generation
    count = one.notes.get(DOCUMENTS)
    if one.current:  # of others the count is not asked: Milvus would load them into memory
        count = engine.open(generation).count()
    return Listed(
        name=one.name,
        state=_state(one),
        documents=None if count is None else int(count),
        pack=generation.pack_id,
        dense_space=generation.dense_space,
        sparse_space=generation.sparse_space,
        applied=one.applied,
        behind=None if one.applied is None else max(0, last - one.applied),
        published=str(one.notes.get(PUBLISHED, "")),
        off=str(one.notes.get(OFF, "")),
    )


def _state(one: Known) -> str:
    if one.current:
        return "current"
    if DROPPING in one.notes:
        return "dropping"
    if one.generation.columns:
        return "adopted"
    return "kept" if one.kept else "unfinished"
