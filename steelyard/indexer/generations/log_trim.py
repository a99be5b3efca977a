"""Forgetting changes that every generation has, and that are old."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta, timezone

from steelyard.indexer.generations.history import Known, moment
from steelyard.plugin.records import RecordStore


def trim_log(
    store: RecordStore,
    found: Sequence[Known],
    older_than: timedelta,
    dropped: Collection[str] = (),
    *,
    dry_run: bool = False,
) -> int:
    """Forget entries that all kept generations contain and that are older, but for the last one.

    That one's time says of which corpora the log still has all that they lack.

    Args:
        store: of the alias.
        found: its generations.
        older_than: what is younger stays: a snapshot of that time may yet be loaded.
        dropped: generations that do not count, in a dry run.
        dry_run: change nothing.

    Returns:
        How many.
    """
    counted = [one for one in found if (one.current or one.kept) and one.name not in dropped]
    if not counted:
        return 0
    applied = min(one.applied or 0 for one in counted)
    first, before = store.first_sequence(), datetime.now(timezone.utc) - older_than
    through = first - 1
    for entry in store.entries(through):
        when = moment(entry.value.get("time"))
        if entry.sequence > applied or when is None or when >= before:
            break
        through = entry.sequence
    through -= 1
    if through < first:
        return 0
    return through - first + 1 if dry_run else store.trim(through)
