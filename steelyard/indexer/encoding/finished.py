"""The shards of a folder as they get finished: what sinks follow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from steelyard.indexer.encoding.manifest import Manifest, ShardEntry
from steelyard.indexer.flow import Flow


class FinishedShards:
    """Shards that lie on disk, journalled, and when there will be no more.

    Sinks read them from there, so a slow sink holds nothing in memory and stops no tower.

    Args:
        flow: of the job.

    Attributes:
        manifest: of the whole folder; None until the last shard is finished.
    """

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._entries: list[ShardEntry] = []
        self.manifest: Manifest | None = None

    def add(self, entry: ShardEntry) -> None:
        """One more is finished."""
        self._flow.change(lambda: self._entries.append(entry))

    def complete(self, manifest: Manifest, rest: Sequence[ShardEntry] = ()) -> None:
        """No more come."""

        def change() -> None:
            self._entries.extend(rest)
            self.manifest = manifest

        self._flow.change(change)

    def __iter__(self) -> Iterator[ShardEntry]:
        """All in order; waits for the next one, and ends early when the flow is ending."""
        place = 0
        while True:
            # Not in the lock: one writer appends, and nothing is ever taken away.
            self._flow.until(
                lambda seen=place: (  # type: ignore[misc]
                    len(self._entries) > seen or self.manifest is not None or self._flow.ending
                )
            )
            if place >= len(self._entries):
                return
            yield self._entries[place]
            place += 1
