"""An interrupted job is given up: what it has begun is dropped, its journal and lease removed."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from steelyard.errors import EngineError, InputError
from steelyard.indexer.generations.history import (
    DROPPING,
    PUBLISHED,
    forget,
    known,
    note,
    note_switches,
    notes,
    now_text,
)
from steelyard.indexer.lease import JOB, LIFE_SECONDS, Lease
from steelyard.plugin.engine import Engine
from steelyard.plugin.records import RecordStore


@dataclass(slots=True)
class Abandoned:
    """What was removed.

    Attributes:
        dropped: generations.
        journal: the sink's journal was there.
    """

    dropped: list[str] = field(default_factory=list)
    journal: bool = False


def abandon(
    engine: Engine,
    store: RecordStore,
    *,
    generation: str | None = None,
    journal: Path | None = None,
    lease: Lease | None = None,
    seconds: float = LIFE_SECONDS,
) -> Abandoned:
    """Drop what an interrupted job has begun. Killed and called again it goes on.

    The lease of a job that died on this machine is taken at once; any other has to run out first.

    Args:
        engine: where the job wrote; of a pair both parts are dropped.
        store: records of the alias.
        generation: name of what it has begun, out of its journal; None: all that was begun and
            never published.
        journal: the sink's, removed last.
        lease: the job lease, where the caller holds it.
        seconds: life of a lease that is taken here.

    Raises:
        LeaseHeldError: a live job holds the lease.
        InputError: the generation was published: there is nothing to give up.
    """
    done = Abandoned()
    with ExitStack() as held:
        if lease is None:
            owner = f"abort of {engine.alias}"
            lease = held.enter_context(Lease.take(store, JOB, owner=owner, seconds=seconds))
        found = known(engine, store)
        note_switches(store, found)
        chosen = [one for one in found if one.leftover]
        if generation is not None:
            chosen = [one for one in found if one.name == generation]
            if any(not one.leftover for one in chosen):
                raise InputError(
                    f"{generation} was published: there is nothing to abort",
                    "go back with 'steelyard rollback'",
                )
        for one in chosen:
            lease.check()
            note(store, one.name, {DROPPING: now_text()})
            engine.drop(one.generation)
            forget(store, one.name)
            done.dropped.append(one.name)
        if generation is not None and not chosen:
            forget_unpublished(store, generation)
        if journal is not None and journal.exists():
            lease.check()
            try:
                journal.unlink()
            except OSError as error:
                raise EngineError(f"cannot remove {journal}: {error.strerror}") from error
            done.journal = True
            with suppress(OSError):
                journal.parent.rmdir()  # only when it is empty
    return done


def forget_unpublished(store: RecordStore, name: str) -> None:
    """Remove the record of a generation that is gone, if it was never published."""
    if PUBLISHED not in notes(store, name):
        forget(store, name)
