"""Dropping generations that nobody searches, and changes that nobody will replay.

Three kinds may go: published generations beyond the K searched last, what a dead job has begun,
and what an earlier run had begun to drop. Each is noted before it is dropped, so that a run that
is killed is continued by the next one, and a generation of which half is gone is never rolled
back to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from steelyard.errors import SteelyardError
from steelyard.indexer.generations.history import (
    DROPPING,
    Known,
    forget,
    known,
    latest_first,
    names,
    note,
    note_switches,
    now_text,
)
from steelyard.indexer.generations.log_trim import trim_log
from steelyard.indexer.lease import JOB, LIFE_SECONDS, WRITE, Holder, Lease, LeaseHeldError
from steelyard.plugin.engine import Engine
from steelyard.plugin.records import RecordStore
from steelyard.plugin.search.current import RESOLVE_SECONDS

GRACE_SECONDS = 60.0
"""A generation is dropped no sooner after it was switched off: searchers may still be on it."""

MIN_GRACE_SECONDS = 10 * RESOLVE_SECONDS
"""Ten times what searchers take to notice; what the command line allows at least."""

KEEP_CHANGES = timedelta(days=30)
"""Entries of the log are kept so long, whoever has applied them."""


@dataclass(slots=True)
class Sweep:
    """What was dropped, or would be.

    Attributes:
        dropped: generations.
        kept: older generations that can be rolled back to, the one searched last first.
        waiting: generations that were switched off too recently.
        failed: generations that would not go, and why.
        job: who holds the job lease; what no job has published is left alone then.
        trimmed: entries of the log that were forgotten.
    """

    dropped: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    job: Holder | None = None
    trimmed: int = 0


def sweep(
    engine: Engine,
    store: RecordStore,
    *,
    keep: int,
    grace: float = GRACE_SECONDS,
    keep_changes: timedelta = KEEP_CHANGES,
    wait: bool = False,
    dry_run: bool = False,
    own: str | None = None,
    lease: Lease | None = None,
    say: Callable[[str], None] = lambda _: None,
    seconds: float = LIFE_SECONDS,
) -> Sweep:
    """Drop what is not needed any more.

    Args:
        engine, store: of the alias.
        keep: how many published generations stay, beside the current one.
        grace: seconds since a generation was switched off before it goes.
        keep_changes: age up to which entries of the log stay.
        wait: wait for the grace to be over; else such generations stay this time.
        dry_run: change nothing.
        own: a job's unpublished generation, which stays.
        lease: the job lease of who calls; None: it is taken if it is free.
        say: told of every generation.
        seconds: life of the leases taken.

    Raises:
        LeaseHeldError: a live change holds the write lease for too long.
    """
    report = Sweep()
    with ExitStack() as held:
        if lease is None:
            try:
                owner = f"gc of {engine.alias}"
                taken = Lease.take(store, JOB, owner=owner, seconds=seconds)
                lease = held.enter_context(taken)
            except LeaseHeldError as error:
                report.job = error.holder
        _drop_all(engine, store, report, keep, grace, wait, dry_run, own, lease, say, seconds)
        if not dry_run:
            _forget_gone(engine, store, seconds)
        # A job that runs may yet need any of it.
        if report.job is None:
            report.trimmed = trim_log(
                store, known(engine, store), keep_changes, report.dropped, dry_run=dry_run
            )
    return report


def _drop_all(
    engine: Engine,
    store: RecordStore,
    report: Sweep,
    keep: int,
    grace: float,
    wait: bool,
    dry_run: bool,
    own: str | None,
    lease: Lease | None,
    say: Callable[[str], None],
    seconds: float,
) -> None:
    told: set[str] = set()
    while True:
        with ExitStack() as held:
            leases = [] if lease is None else [lease]
            if not dry_run:
                owner = f"gc of {engine.alias}"
                write = Lease.take(store, WRITE, owner=owner, seconds=seconds, wait=600)
                leases.append(held.enter_context(write))
            found = known(engine, store)
            if not dry_run:
                note_switches(store, found)
                found = known(engine, store)
            report.kept, going = chosen(found, keep, leftovers=lease is not None, own=own)
            left = {one.name: _grace_left(one, grace) for one in going}
            for one in going:
                if left[one.name] <= 0 and one.name not in report.failed:
                    _drop(engine, store, one, leases, report, dry_run, say)
        report.waiting = [name for name, seconds_left in left.items() if seconds_left > 0]
        longest = max((left[name] for name in report.waiting), default=0.0)
        if not report.waiting or not wait or dry_run:
            return
        for name in report.waiting:
            if name not in told:
                say(f"{name} was switched off just now: waiting {left[name]:.0f} s")
                told.add(name)
        time.sleep(min(longest, 1.0))


def chosen(
    found: Sequence[Known], keep: int, *, leftovers: bool, own: str | None = None
) -> tuple[list[str], list[Known]]:
    """Names of the older generations that stay, and the generations that go.

    Args:
        found: all of them.
        keep: how many published ones stay beside the current.
        leftovers: whether what was never published goes too.
        own: what goes in no case.
    """
    kept = latest_first([one for one in found if one.kept])
    going = [one for one in kept[keep:] if one.name != own]
    if leftovers:
        going += [one for one in found if one.leftover and one.name != own]
    return [one.name for one in kept[:keep]], going


def _drop(
    engine: Engine,
    store: RecordStore,
    one: Known,
    leases: Sequence[Lease],
    report: Sweep,
    dry_run: bool,
    say: Callable[[str], None],
) -> None:
    if dry_run:
        report.dropped.append(one.name)
        return
    try:
        for lease in leases:
            lease.check()
        note(store, one.name, {DROPPING: now_text()})
        engine.drop(one.generation)
        forget(store, one.name)
    except SteelyardError as error:
        for lease in leases:
            lease.check()  # whoever has lost a lease stops here
        report.failed[one.name] = str(error)
        say(f"could not drop {one.name}: {error}")
        return
    report.dropped.append(one.name)


def _grace_left(one: Known, grace: float) -> float:
    """Seconds until it may go; what was never published is searched by nobody."""
    off = one.off_since
    if off is None:
        return 0.0
    age = (datetime.now(timezone.utc) - off).total_seconds()
    # Switched off in the future: another machine's clock is ahead of this one's.
    return min(grace, grace - age)


def _forget_gone(engine: Engine, store: RecordStore, seconds: float) -> None:
    """Remove records of generations that are not there: a run was killed before it did."""
    written = names(store)
    if not written - {one.name for one in engine.generations()}:
        return
    with Lease.take(
        store, WRITE, owner=f"gc of {engine.alias}", seconds=seconds, wait=600
    ) as lease:
        there = {one.name for one in engine.generations()}
        for name in sorted(written - there):
            lease.check()
            forget(store, name)
