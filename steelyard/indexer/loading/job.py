"""One sink's part of a job: its generation is made or gone on with, filled, sealed, published.

Every step can be interrupted. The sink's journal says which are done, and each of them may be
done twice without harm.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from steelyard.encoders.folder_lock import locked_file
from steelyard.encoders.pack.metadata import PackMetadata
from steelyard.encoders.pack.spaces import short_hash
from steelyard.errors import BusyError, EngineError, SteelyardError
from steelyard.indexer.changes.encoder import ChangeEncoder, whole_id
from steelyard.indexer.encoding.finished import FinishedShards
from steelyard.indexer.encoding.manifest import EncodingPlan, ShardEntry, check_shard
from steelyard.indexer.encoding.rejected import check_rejected
from steelyard.indexer.encoding.shards import read_shard
from steelyard.indexer.encoding.storage import storing
from steelyard.indexer.flow import Flow
from steelyard.indexer.generations.abort import abandon
from steelyard.indexer.generations.gc import GRACE_SECONDS, sweep
from steelyard.indexer.generations.verify import SAMPLE, joined, sample_of, verify
from steelyard.indexer.lease import JOB, LIFE_SECONDS, Lease
from steelyard.indexer.loading.generation import check_spaces, content_of, generation_of
from steelyard.indexer.loading.journal import Acknowledged, SinkJournal
from steelyard.indexer.loading.replaying import Replaying
from steelyard.indexer.loading.sink import PATIENCE, LoadReport, Sink
from steelyard.plugin.abilities import HasHalves, RetriesRequests
from steelyard.plugin.backoff import Backoff
from steelyard.plugin.engine import Engine, Generation, Refused
from steelyard.progress import Progress
from steelyard.types import EncodedDocuments

SEALED, VERIFIED, PUBLISHED = "sealed", "verified", "published"
"""The steps behind the last shard, as the journal names them."""


def utc_now() -> datetime:
    """The clock of generations' names."""
    return datetime.now(timezone.utc)


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """How to load.

    Attributes:
        keep: older generations to keep.
        patience: seconds to wait for a server that is busy or restarting.
        max_rejected: stop when more documents are rejected, the engine's refusals included.
        now: the clock, for the generation's name.
        snapshot: when the corpus was taken: live changes after that are applied to it; None: when
            the job began.
        changes: encodes those; None: there is no document encoder at hand.
        grace: seconds since a generation was switched off before it is dropped.
    """

    keep: int = 1
    patience: float = PATIENCE
    max_rejected: int | None = None
    now: Callable[[], datetime] = utc_now
    snapshot: datetime | None = None
    changes: Callable[[], ChangeEncoder] | None = None
    grace: float = GRACE_SECONDS


@dataclass(slots=True)
class SinkJob:
    """Shards to one engine, as they get finished.

    Attributes:
        sink: where to.
        folder: of the shards.
        plan: what they hold.
        pack: whose spaces they have.
        shards: as they get finished.
        flow: of the job.
        progress: shows the documents loaded.
        settings: how.
        report: what was done; None: not to the end.
    """

    sink: Sink
    folder: Path
    plan: EncodingPlan
    pack: PackMetadata
    shards: FinishedShards
    flow: Flow
    progress: Progress
    settings: LoadSettings = LoadSettings()
    report: LoadReport | None = field(default=None, init=False)
    journal: SinkJournal = field(init=False)
    _lease: Lease = field(init=False)

    def __post_init__(self) -> None:
        check_spaces(self.plan, self.pack)
        spaces = (self.plan.dense_space, self.plan.sparse_space)
        self.journal = SinkJournal(self.folder, self.sink.url, spaces)

    def run(self) -> None:
        """All steps, from the first that is not done."""
        with contextlib.ExitStack() as held:
            hold_sink(self.journal, held)
            self.journal.read()
            self._close(self._open())  # a wrong address fails before hours of encoding
            first = next(iter(self.shards), None)
            if first is None:
                return
            engine = self._open()
            self.progress.fact("alias", engine.alias, sink=self.sink.url)
            held.callback(self._close, engine)
            self.report = self._load(engine)

    def _load(self, engine: Engine) -> LoadReport | None:
        store = self.sink.records_of(engine)
        owner = f"re-index {engine.alias}"
        with Lease.take(store, JOB, owner=owner, wait=1.5 * LIFE_SECONDS) as lease:
            self._lease = lease
            return self._steps(
                engine, Replaying(engine, store, lease, self.settings, self.progress)
            )

    def _steps(self, engine: Engine, replaying: Replaying) -> LoadReport | None:
        store, lease, keep = replaying.store, replaying.lease, self.settings.keep
        generation = self._resumed(engine)
        current = engine.resolve()
        dropped: list[str] = []
        if generation is None:
            if current is not None and current.content == content_of(self.plan, self.pack):
                reused = self._reused(engine, current, replaying)
                if reused is not None or self.shards.manifest is None:
                    return reused
            dropped = abandon(engine, store, lease=lease).dropped
            generation = self._created(engine, replaying)
        begun = generation
        self.progress.fact("generation", begun.name, sink=self.sink.url)
        if PUBLISHED not in self.journal.steps:
            if not self._fill(engine, begun):
                return None
            self._step(SEALED, lambda: engine.seal(begun))
            self._step(VERIFIED, lambda: self._verify(engine, begun))
            self._step(PUBLISHED, lambda: replaying.switch(begun))
        self.flow.until(lambda: self.shards.manifest is not None or self.flow.ending)
        swept = sweep(
            engine, store, keep=keep, grace=self.settings.grace, lease=lease, say=self.progress.say
        )
        return LoadReport(
            generation=begun.name,
            documents=self._expected(),
            clipped=self.journal.clipped,
            reused=False,
            dropped=dropped + swept.dropped,
            refused=self.journal.refused,
            sink=self.sink.url,
        )

    def _open(self) -> Engine:
        engine = self.sink.open()
        if self.sink.closes and isinstance(engine, RetriesRequests):
            engine.backoff = Backoff(patience=self.settings.patience, wait=self._wait)
        return engine

    def _wait(self, seconds: float) -> None:
        """Before a request is sent again."""
        self.progress.count("retries", 1, sink=self.sink.url)
        self.flow.wait(seconds)

    def _close(self, engine: Engine) -> None:
        if self.sink.closes:
            engine.close()

    def _reused(
        self, engine: Engine, current: Generation, replaying: Replaying
    ) -> LoadReport | None:
        """Of an alias that stands for exactly this already; None: it does not."""
        self.flow.until(lambda: self.shards.manifest is not None or self.flow.ending)
        if self.shards.manifest is None:
            return None
        lacks = replaying.lacks(current)
        if lacks is None:
            return None
        count = engine.open(current).count()
        if count != self._expected() and not replaying.changed(current):
            return None
        if lacks:
            replaying.switch(current)
            count = engine.open(current).count()
        self.progress.fact("generation", current.name, sink=self.sink.url)
        self.progress.fact("count", count, sink=self.sink.url)
        self.progress.say(f"{engine.alias} already holds exactly this: {current.name}")
        if current.pack_id != self.pack.pack_id:
            self.progress.say(
                f"it was made with {current.pack_id}, of the same spaces: {self.pack.pack_id} "
                "searches it as it is"
            )
        refused = self.journal.refused
        return LoadReport(current.name, count, 0, True, [], refused, self.sink.url)

    def _resumed(self, engine: Engine) -> Generation | None:
        """The generation that an earlier run began, if it can be gone on with."""
        begun = self.journal.generation
        if begun is None or PUBLISHED in self.journal.steps:
            return None
        current = engine.resolve()
        there = any(found == begun for found in engine.generations())
        if isinstance(engine, HasHalves):
            there = there and engine.is_whole(begun)
        published = current is not None and current.name == begun.name
        if published and VERIFIED in self.journal.steps:
            return begun  # the end of the switch was not awaited
        if there and not published and begun.content == content_of(self.plan, self.pack):
            if not self.journal.acknowledged:
                # It may be there by half.
                drop(engine, [begun], self.progress)
                return None
            self.progress.say(
                f"going on with {begun.name}: {len(self.journal.acknowledged)} shards are there"
            )
            return begun
        if self.journal.acknowledged:
            self.progress.say(
                f"{begun.name} is gone or is of other shards: loading from the start"
            )
        return None

    def _created(self, engine: Engine, replaying: Replaying) -> Generation:
        moment = self.settings.now().strftime("%Y%m%d%H%M%S")
        content = content_of(self.plan, self.pack)
        name = f"{engine.alias}_{moment}_{short_hash([content, moment], 8)}"
        generation = generation_of(name, self.plan, self.pack, content)
        replaying.check_log()
        self.journal.begin(generation)
        engine.create(generation)
        return generation

    def _fill(self, engine: Engine, generation: Generation) -> bool:
        """Load what is not acknowledged; False: the flow ended before the last shard."""
        journal = self.journal
        with self.progress.stage(f"load {engine.alias}", self._total()) as advance:
            for entry in self.shards:
                if entry.name not in journal.acknowledged:
                    self.flow.check()
                    self._load_shard(engine, generation, entry)
                else:
                    self._count(journal.acknowledged[entry.name], ())
                advance(entry.documents)
        manifest = self.shards.manifest
        if manifest is None:
            return False
        if len(journal.acknowledged) < len(manifest.shards):
            return False  # the flow was ending, and the last shards came all the same
        self._check_refused(manifest.rejected)
        return True

    def _load_shard(self, engine: Engine, generation: Generation, entry: ShardEntry) -> None:
        check_shard(self.folder, entry)
        content = read_shard(self.folder / entry.name)
        self._lease.regain()  # the shard before may have waited long for a server
        report = engine.upsert(generation, content, report_refused=True)
        refused = report.refused
        if refused and generation.passages:
            divided = _other_passages(content, refused)
            engine.delete(generation, [one.id for one in divided])
            refused = (*refused, *divided)
        self.journal.acknowledge(entry, report.clipped, refused)
        self._count(self.journal.acknowledged[entry.name], refused)
        if refused:
            self._check_refused(0)

    def _count(self, done: Acknowledged, refused: tuple[Refused, ...]) -> None:
        sink, progress = self.sink.url, self.progress
        progress.count("documents", done.documents - done.refused, stage="indexed", sink=sink)
        progress.count("clipped_weights", done.clipped, sink=sink)
        for one in refused:
            progress.count("documents", 1, stage="refused", sink=sink, reason=one.reason)
        if done.refused > len(refused):
            earlier = done.refused - len(refused)
            progress.count("documents", earlier, stage="refused", sink=sink)

    def _check_refused(self, others: int) -> None:
        """Bounded together with the ``others`` that never became documents."""
        count = self.journal.refused + others
        check_rejected(count, self.settings.max_rejected, self.folder)

    def _total(self) -> int | None:
        manifest = self.shards.manifest
        return self.plan.corpus_lines if manifest is None else manifest.encoded

    def _expected(self) -> int:
        """Rows that the engine must have."""
        manifest = self.shards.manifest
        return 0 if manifest is None else manifest.encoded - self.journal.refused

    def _step(self, name: str, work: Callable[[], None]) -> None:
        if name not in self.journal.steps:
            self.flow.check()
            self._lease.regain()
            work()
            self.journal.done(name)

    def _verify(self, engine: Engine, generation: Generation) -> None:
        """Count, and compare some documents of the first, the middle and the last shard."""
        manifest = self.shards.manifest
        entries = [] if manifest is None else manifest.shards
        chosen = {
            e.name: e for e in (entries[:1] + entries[len(entries) // 2 :][:1] + entries[-1:])
        }
        samples = [sample_of(read_shard(self.folder / name), SAMPLE // 2) for name in chosen]
        sample = joined(samples, self.plan.vocabulary_size, self.plan.dims)
        sample = self._without_refused(sample)
        try:
            index = engine.open(generation)
            found = verify(index, self._expected(), sample, generation.scale)
            self.progress.fact("count", found.documents, sink=self.sink.url)
        except EngineError:
            # Going on with it would end here again.
            with contextlib.suppress(SteelyardError):
                self._lease.check()
                engine.drop(generation)
                self.journal.forget()
            raise

    def _without_refused(self, sample: EncodedDocuments) -> EncodedDocuments:
        refused = self.journal.refused_ids({one.id for one in sample.documents})
        return sample.select([i for i, d in enumerate(sample.documents) if d.id not in refused])


def _other_passages(
    content: EncodedDocuments, refused: tuple[Refused, ...]
) -> tuple[Refused, ...]:
    """Passages of documents of which the engine refused one: no document is there in part.

    A document's passages are all in one shard.
    """
    wholes = {one.id: whole_id(one.id, one.parent_id) for one in content.documents}
    ids = {one.id for one in refused}
    bad = {wholes[identifier] for identifier in ids}
    return tuple(
        Refused(identifier, "another passage of it is refused")
        for identifier, whole in wholes.items()
        if whole in bad and identifier not in ids
    )


def hold_sink(journal: SinkJournal, held: contextlib.ExitStack) -> None:
    """Hold a sink's lock: one job at a time fills one engine from one folder."""
    try:
        with storing(journal.lock_path):
            held.enter_context(locked_file(journal.lock_path, wait=False))
    except SteelyardError as error:
        if isinstance(error.__cause__, BlockingIOError):
            raise BusyError(f"another job is loading {journal.sink}", "wait for it") from error
        raise


def drop(engine: Engine, generations: list[Generation], progress: Progress) -> list[str]:
    """Remove generations; one that will not go is told, not an error: the new one is live."""
    dropped = []
    for generation in generations:
        try:
            engine.drop(generation)
            dropped.append(generation.name)
        except SteelyardError as error:
            progress.say(f"could not drop {generation.name}: {error}")
    return dropped
