"""Back to an older generation, with the changes that came since, or knowingly without them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from steelyard.errors import EngineError, InputError, PackError
from steelyard.indexer.changes.positions import write_position
from steelyard.indexer.generations.history import Known, known, latest_first, note_switches
from steelyard.indexer.generations.switch import WAIT_SECONDS, publish
from steelyard.indexer.lease import LIFE_SECONDS, WRITE, Lease
from steelyard.plugin.engine import Engine, Generation
from steelyard.plugin.records import ConflictError, RecordStore

INTENT = "rollback"
"""Record of a rollback that has begun, so that it is not begun a second time from its target."""

Replay = Callable[[Generation, int, bool], int]
"""Replays the log into a generation after a number, so that searches see it; the last number that
it contains then. The flag says whether documents have to be encoded. ``PackError``: there is no
encoder at hand."""


@dataclass(frozen=True, slots=True)
class Rollback:
    """What was done.

    Attributes:
        before, after: the generations that the alias stood for and stands for.
        replayed: changes that were replayed.
        missing: changes that the generation lacks; None: it is not known how many.
        stale: it lacks some, and that was accepted.
    """

    before: str
    after: str
    replayed: int
    missing: int | None
    stale: bool


def rollback(
    engine: Engine,
    store: RecordStore,
    replay: Replay,
    *,
    to: str | None = None,
    accept_stale: bool = False,
    say: Callable[[str], None] = lambda _: None,
    seconds: float = LIFE_SECONDS,
    wait: float = WAIT_SECONDS,
) -> Rollback:
    """Make the alias stand for an older generation again.

    Killed at any moment and called again, it goes on. A re-index that runs is not disturbed: what
    it publishes in the end becomes current.

    Args:
        engine, store: of the alias.
        replay: replays changes.
        to: name of the generation; None: of those made before the current one, the one that was
            searched last.
        accept_stale: go back also where changes cannot be replayed.
        say: told what is done.
        seconds: life of the write lease.
        wait: seconds to wait for it.

    Raises:
        InputError: there is no such generation, or none to go back to.
        EngineError: changes are missing that cannot be replayed, and ``accept_stale`` is False;
            how many.
    """
    owner = f"rollback of {engine.alias}"
    with Lease.take(store, WRITE, owner=owner, seconds=seconds, wait=wait) as lease:
        found = known(engine, store)
        note_switches(store, found)
        found = known(engine, store)
        before = next((one for one in found if one.current), None)
        if before is None:
            raise InputError(
                f"{engine.alias} stands for nothing", "make an index with 'steelyard index'"
            )
        begun = _begun(store, found, before.name, to)
        if before.name in (begun, to):
            publish(engine, before.generation, store, [lease])
            _end(store)
            say(f"{engine.alias} stands for {before.name} already")
            return Rollback(before.name, before.name, 0, 0, False)
        target = _target(found, before, begun or to)
        generation = target.generation
        engine.open(
            generation
        )  # whole in every engine, and in memory, before anybody is sent to it
        _begin(store, before.name, target.name)
        last = store.last_sequence()
        replayed, missing, reason = 0, 0 if target.applied == last else None, ""
        if generation.columns:
            reason = "it was adopted, and Steelyard only reads it"
            missing = 0 if last == 0 else None
        elif target.applied is None:
            reason = "it is not known which changes it contains"
            missing = 0 if last == 0 else None
        elif store.first_sequence() > target.applied + 1 and last > target.applied:
            missing, reason = last - target.applied, "some of them are no longer in the log"
        elif last > target.applied:
            missing = last - target.applied
            upserts = any(e.value.get("op") == "upsert" for e in store.entries(target.applied))
            say(f"replaying {missing:,} changes into {target.name}")
            try:
                applied = replay(generation, target.applied, upserts)
            except PackError as error:
                reason = str(error)
            else:
                lease.check()
                write_position(store, generation, applied)
                replayed, missing = applied - target.applied, max(0, last - applied)
        stale = missing is None or missing > 0
        if stale:
            _end_unless(store, accept_stale)
            _accept(target.name, missing, reason, accept_stale, say)
        publish(engine, generation, store, [lease])
        _end(store)
    return Rollback(before.name, target.name, replayed, missing, stale)


def _accept(
    name: str, missing: int | None, reason: str, accepted: bool, say: Callable[[str], None]
) -> None:
    many = "an unknown number of" if missing is None else f"{missing:,}"
    text = f"{many} changes are missing in {name}: {reason}"
    if not accepted:
        raise EngineError(
            text,
            "name the query pack that it was made with by --pack, so that they are replayed; or "
            "go back without them by --accept-stale",
        )
    say(text)


def _target(found: list[Known], before: Known, to: str | None) -> Known:
    """The generation to go back to."""
    kept = latest_first([one for one in found if one.kept])
    listed = ", ".join(one.name for one in kept) or "none"
    if to is not None:
        named = next((one for one in found if one.name == to), None)
        if named is None or not (named.kept or named.generation.columns):
            what = "was never published" if named is not None else "is not there"
            raise InputError(f"{to} {what}", f"generations to go back to: {listed}")
        return named
    older = [one for one in kept if one.name < before.name or before.generation.columns]
    if not older:
        raise InputError(
            f"there is no generation before {before.name} to go back to",
            f"newer ones have to be named by --generation: {listed}",
        )
    return older[0]


def _begun(store: RecordStore, found: list[Known], current: str, to: str | None) -> str | None:
    """Target of a rollback that was killed, if this one is the same."""
    intent = store.read(INTENT)
    if intent is None:
        return None
    start, target = intent.value.get("from"), str(intent.value.get("to"))
    if to not in (None, target) or current not in (start, target):
        return None
    there = any(one.name == target and (one.kept or one.current) for one in found)
    return target if there else None


def _begin(store: RecordStore, start: str, target: str) -> None:
    found = store.read(INTENT)
    expected = None if found is None else found.version
    store.write(INTENT, {"from": start, "to": target}, expected=expected)


def _end(store: RecordStore) -> None:
    found = store.read(INTENT)
    if found is None:
        return
    try:
        store.remove(INTENT, expected=found.version)
    except ConflictError:
        return


def _end_unless(store: RecordStore, accepted: bool) -> None:
    """A rollback that is refused is no longer begun."""
    if not accepted:
        _end(store)
