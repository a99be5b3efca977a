"""The switch: under the write lease, the last changes are replayed and the alias is moved."""

from __future__ import annotations

from collections.abc import Callable

from steelyard.errors import EngineError
from steelyard.indexer.changes.positions import read_position, write_position
from steelyard.indexer.generations.history import (
    DOCUMENTS,
    DROPPING,
    OFF,
    PUBLISHED,
    note,
    notes,
    now_text,
)
from steelyard.indexer.lease import LIFE_SECONDS, WRITE, Lease
from steelyard.plugin.engine import Engine, Generation
from steelyard.plugin.records import RecordStore

WAIT_SECONDS = 600.0
"""For live changes to let go of the write lease."""


def switch(
    engine: Engine,
    generation: Generation,
    store: RecordStore,
    drain: Callable[[], int],
    lease: Lease,
    *,
    snapshot: str | None = None,
    seconds: float = LIFE_SECONDS,
    wait: float = WAIT_SECONDS,
) -> None:
    """Publish a generation that is loaded, sealed and verified.

    Killed at any moment and called again it ends in the same state; readers find one whole
    generation at all times.

    Args:
        engine, generation: what to publish.
        store: records of the alias.
        drain: replays what the log holds and the generation lacks, and makes it searchable;
            gives the number of the last change that it contains.
        lease: the job's, which must still be held.
        snapshot: time that the corpus is of, for the record.
        seconds: life of the write lease.
        wait: seconds to wait for it.

    Raises:
        LeaseHeldError: a live change holds the write lease for too long.
        LeaseLostError: somebody else's job has begun; nothing is published.
        EngineError: the engine failed; nothing is published, unless the message says so.
    """
    owner = f"switch to {generation.name}"
    with Lease.take(store, WRITE, owner=owner, seconds=seconds, wait=wait) as write:
        applied = drain()
        # A call before this one may have been killed after it published: changes came since.
        before = read_position(store, generation.name)
        applied = applied if before is None else max(applied, before.applied)
        lease.check()
        write.check()
        write_position(store, generation, applied, snapshot=snapshot)
        note(store, generation.name, {DOCUMENTS: engine.open(generation).count()})
        publish(engine, generation, store, [lease, write])


def publish(
    engine: Engine, generation: Generation, store: RecordStore, leases: list[Lease]
) -> Generation | None:
    """Move the alias, and note it; the generation that it stood for before.

    Args:
        engine, generation: what to publish.
        store: records of the alias.
        leases: that must be held; the write lease is one of them.
    """
    before = engine.resolve()
    for lease in leases:
        lease.renew()
    if before is not None and before.name != generation.name:
        # Its notes may lack that it was published, if it is from before there were notes.
        since = notes(store, before.name).get(PUBLISHED) or now_text()
        note(store, before.name, {PUBLISHED: since})
    for lease in leases:
        lease.check()
    # Also where it is published already: of a pair, the follower's alias may be behind.
    engine.publish(generation)
    found = engine.resolve()
    if found is None or found.name != generation.name:
        stands = "nothing" if found is None else found.name
        raise EngineError(
            f"{generation.name} was published, but {engine.alias} stands for {stands}",
            "another job has switched it: look at 'steelyard generations'",
        )
    note(store, generation.name, {PUBLISHED: now_text()}, without=(OFF, DROPPING))
    if before is not None and before.name != generation.name:
        note(store, before.name, {OFF: now_text()})
    return before
