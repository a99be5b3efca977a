"""What live changes mean to a job: its generation contains those that its corpus lacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from steelyard.errors import EngineError, InputError
from steelyard.indexer.changes.encoder import ChangeEncoder
from steelyard.indexer.changes.log import entry_time, sequence_at
from steelyard.indexer.changes.positions import begun_at, read_position, write_position
from steelyard.indexer.changes.replay import replay
from steelyard.indexer.generations.switch import switch
from steelyard.indexer.lease import Lease
from steelyard.plugin.engine import Engine, Generation
from steelyard.plugin.records import RecordStore
from steelyard.progress import Progress


class ReplaySettings(Protocol):
    """What a job is told of live changes."""

    @property
    def snapshot(self) -> datetime | None:
        """When the corpus was taken; None: when the job began."""

    @property
    def changes(self) -> Callable[[], ChangeEncoder] | None:
        """Encodes changed documents; None: nothing can."""


@dataclass(slots=True)
class Replaying:
    """The log of live changes, for one job.

    Attributes:
        engine: where the job loads.
        store: records of the alias.
        lease: the job's.
        settings: when the corpus was taken, and what encodes changed documents.
        progress: shows the changes done.
    """

    engine: Engine
    store: RecordStore
    lease: Lease
    settings: ReplaySettings
    progress: Progress
    _opened: ChangeEncoder | None = field(default=None, init=False)

    def check_log(self) -> None:
        """Refuse a corpus that is older than the log: what was forgotten would come back.

        Raises:
            InputError: both times.
        """
        first, snapshot = self.store.first_sequence(), self.settings.snapshot
        if first == 1 or snapshot is None or self.store.last_sequence() == 0:
            return
        oldest = next(iter(self.store.entries(first - 1)), None)
        if oldest is None or entry_time(oldest) > snapshot:
            since = "now" if oldest is None else entry_time(oldest).isoformat(timespec="seconds")
            raise InputError(
                f"the corpus is of {snapshot.isoformat(timespec='seconds')}, and the log of live "
                f"changes of {self.engine.alias} begins {since}: earlier ones are forgotten",
                "take a newer corpus, or say by --snapshot-time when it was taken",
            )

    def changed(self, generation: Generation) -> bool:
        """Whether live changes were applied to a generation since the corpus was taken."""
        found = read_position(self.store, generation.name)
        return found is not None and found.applied > self._behind_corpus(generation)

    def lacks(self, generation: Generation) -> int | None:
        """Changes that a generation of this very content lacks; None: it has to be made anew.

        That is so if there are changes between the time that its corpus was of and the time that
        this one is of (the same bytes may have come again), or if the log was trimmed too far.
        """
        last, first = self.store.last_sequence(), self.store.first_sequence()
        if not last:
            return 0
        found, ours = read_position(self.store, generation.name), self._taken(generation)
        theirs = begun_at(generation)
        if found is not None and found.snapshot:
            theirs = datetime.fromisoformat(found.snapshot)
        if ours is None or theirs is None:
            return None
        if ours != theirs:
            oldest = next(iter(self.store.entries(first - 1)), None)
            if first > 1 and (oldest is None or entry_time(oldest) > min(ours, theirs)):
                return None
            if sequence_at(self.store, ours) != sequence_at(self.store, theirs):
                return None
        applied = self._applied(generation)
        return None if applied + 1 < first else last - applied

    def switch(self, generation: Generation) -> None:
        """Apply what the corpus lacks, beside live writers, then while they wait; publish.

        What is published already is written only while they wait.
        """
        taken = self._taken(generation)
        snapshot = "" if taken is None else taken.isoformat()
        current = self.engine.resolve()
        if current is None or current.name != generation.name:
            applied = self._replayed(generation, self._applied(generation))
            write_position(self.store, generation, applied, snapshot=snapshot)
        switch(
            self.engine,
            generation,
            self.store,
            lambda: self._replayed(generation, self._applied(generation)),
            self.lease,
            snapshot=snapshot,
        )

    def _taken(self, generation: Generation) -> datetime | None:
        """When the corpus was."""
        return self.settings.snapshot or begun_at(generation)

    def _applied(self, generation: Generation) -> int:
        """Number of the last change that a generation contains, as it is recorded now."""
        found = read_position(self.store, generation.name)
        return self._behind_corpus(generation) if found is None else found.applied

    def _behind_corpus(self, generation: Generation) -> int:
        """Number of the last change that the corpus contains."""
        taken = self._taken(generation)
        return 0 if taken is None else sequence_at(self.store, taken)

    def _replayed(self, generation: Generation, after: int) -> int:
        return replay(
            self.store,
            self.engine,
            generation,
            self._encoder,
            after,
            self.progress,
            check=self.lease.check,
        )

    def _encoder(self) -> ChangeEncoder:
        if self.settings.changes is None:
            raise EngineError(
                f"live changes of {self.engine.alias} are to be encoded, and there is nothing to "
                "encode them with",
                "load with the pack: 'steelyard load' or 'steelyard index'",
            )
        if self._opened is None:
            # Once: live writers wait while the last changes are replayed.
            self._opened = self.settings.changes()
        return self._opened
