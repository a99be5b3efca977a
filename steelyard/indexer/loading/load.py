"""Shards to engines: each gets a new generation, loaded, counted, then published by its alias."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np

from steelyard.encoders.pack.metadata import PackMetadata
from steelyard.encoders.pack.spaces import short_hash
from steelyard.errors import InputError, SteelyardError
from steelyard.indexer.encoding.encode import STOP_SECONDS
from steelyard.indexer.encoding.finished import FinishedShards
from steelyard.indexer.encoding.manifest import JOURNAL, EncodingPlan, Manifest, read_manifest
from steelyard.indexer.encoding.rejected import join_refused
from steelyard.indexer.encoding.shards import read_shard
from steelyard.indexer.flow import Flow
from steelyard.indexer.generations.gc import GRACE_SECONDS
from steelyard.indexer.loading.generation import generation_of
from steelyard.indexer.loading.job import LoadSettings, SinkJob, utc_now
from steelyard.indexer.loading.sink import LoadReport, Sink
from steelyard.indexer.signals import stop_signals
from steelyard.plugin.engine import Engine, Generation
from steelyard.plugin.exact import ExactIndex
from steelyard.plugin.folder_records import FolderRecords
from steelyard.plugin.quantise import quantise
from steelyard.plugin.records import KeepsRecords, RecordStore
from steelyard.progress import Progress
from steelyard.types import EncodedDocuments, SparseVectors


def load_shards(
    manifest: Manifest,
    folder: Path,
    pack: PackMetadata,
    engine: Engine,
    progress: Progress,
    *,
    keep: int = 1,
    now: Callable[[], datetime] = utc_now,
    grace: float = GRACE_SECONDS,
) -> LoadReport:
    """Load a folder of shards into a new generation of an open engine and publish it.

    Readers see the old generation until the new one is complete; a load that fails leaves the
    alias as it was, and the same call goes on with what is loaded.

    Args:
        manifest, folder: of the shards.
        pack: whose spaces the shards must have.
        engine: where to; it stays open.
        progress: shows the documents loaded.
        keep: older generations to keep.
        now: the clock, for the generation's name.
        grace: seconds since an older generation was switched off before it is dropped.

    Raises:
        PackMismatchError: the shards are of another space than the pack.
        EngineError: the engine failed, or its count is not the shards'.
    """
    # The same alias may be in several engines that are loaded from this folder.
    where = getattr(engine, "where", "")
    name = f"{type(engine).__name__}/{where}/{engine.alias}"

    def records(engine: Engine) -> RecordStore:
        if isinstance(engine, KeepsRecords):
            return engine.records()
        return FolderRecords(folder / "records" / short_hash(name))

    sink = Sink(name, lambda: engine, closes=False, records=records)
    settings = LoadSettings(keep=keep, now=now, grace=grace)
    (report,) = load_folder(manifest, folder, pack, [sink], progress, settings)
    return report


def load_folder(
    manifest: Manifest,
    folder: Path,
    pack: PackMetadata,
    sinks: Sequence[Sink],
    progress: Progress,
    settings: LoadSettings = LoadSettings(),  # noqa: B008  (frozen)
) -> list[LoadReport]:
    """Load a folder of shards into several engines, side by side; one report each.

    A sink that fails stops no other; its error is raised when they have ended. However old the
    shards are, live changes since their corpus was taken are applied to them.

    Raises:
        as ``load_shards``; and InterruptedJobError: by Ctrl-C or SIGTERM.
    """
    taken = settings.snapshot or datetime.fromisoformat(manifest.corpus_modified)
    settings = replace(settings, snapshot=taken)
    flow = Flow()
    shards = FinishedShards(flow)
    shards.complete(manifest, manifest.shards)
    progress.fact("shards", str(folder))
    with stop_signals() as signals:
        loading = Loading(flow, shards, folder, manifest.plan, pack, sinks, progress, settings)
        loading.start()
        flow.join(signals.wanted, STOP_SECONDS)
    return loading.reports()


def complete_folder(folder: Path) -> Manifest:
    """The manifest of a folder that can be loaded.

    Raises:
        InputError: it is incomplete, or there are no shards.
    """
    manifest = read_manifest(folder) if folder.is_dir() else None
    if manifest is not None:
        return manifest
    if (folder / JOURNAL).is_file():
        raise InputError(
            f"the shards in {folder} are not complete: their encoding was interrupted",
            "run the same 'steelyard encode-documents' again: it goes on from there",
        )
    raise InputError(
        f"no shards in {folder}", "make them with 'steelyard encode-documents --shards DIR'"
    )


class Loading:
    """The sinks of a job, each in a thread of its own.

    Args:
        flow: of the job.
        shards: as they get finished.
        folder, plan: theirs.
        pack: whose spaces they have.
        sinks: where to.
        progress: shows the documents loaded.
        settings: how.
    """

    def __init__(
        self,
        flow: Flow,
        shards: FinishedShards,
        folder: Path,
        plan: EncodingPlan,
        pack: PackMetadata,
        sinks: Sequence[Sink],
        progress: Progress,
        settings: LoadSettings,
    ) -> None:
        if len({sink.url for sink in sinks}) < len(sinks):
            raise InputError("the same engine is named twice", "name each --to once")
        self._flow, self._folder = flow, folder
        self._jobs = [
            SinkJob(sink, folder, plan, pack, shards, flow, progress, settings) for sink in sinks
        ]
        self._failed: dict[str, SteelyardError] = {}

    def start(self) -> None:
        """Start them; they end by themselves."""
        for job in self._jobs:
            self._flow.start(f"load-{job.journal.path.stem}", lambda job=job: self._run(job))  # type: ignore[misc]

    def _run(self, job: SinkJob) -> None:
        try:
            job.run()
        except SteelyardError as error:
            if self._flow.cause is None:
                self._failed[job.sink.url] = error
                # The open shard is finished, no other is begun: the job is going to fail.
                self._flow.finish()

    def reports(self) -> list[LoadReport]:
        """What was done, once all have ended.

        Raises:
            SteelyardError: a sink failed: the first one's error, and which sink.
        """
        refused = [job.journal.refused_path for job in self._jobs]
        refused = [path for path in refused if path.exists() and path.stat().st_size]
        if refused:
            join_refused(self._folder, refused)
        for sink, error in self._failed.items():
            if len(self._jobs) > 1:
                error.message = f"{sink}: {error.message}"
                error.hint = f"{error.hint}; the same command goes on from here".lstrip("; ")
                error.args = (error.message,)
            raise error
        reports = [job.report for job in self._jobs]
        if any(report is None for report in reports):
            raise SteelyardError("a load ended early", "run the same command again")
        return [report for report in reports if report is not None]


def exact_index(manifest: Manifest, folder: Path, pack: PackMetadata) -> ExactIndex:
    """The shards as an exact in-memory index, with the impacts an engine would hold."""
    contents = [read_shard(folder / entry.name) for entry in manifest.shards]
    sparse = [quantise(content.sparse, pack.sparse.scale)[0] for content in contents]
    joined = EncodedDocuments(
        [document for content in contents for document in content.documents],
        np.concatenate([content.dense for content in contents]),
        SparseVectors.from_rows(
            [row for part in sparse for row in part.rows()], manifest.plan.vocabulary_size
        ),
    )
    return ExactIndex(generation_of("exact", manifest.plan, pack, "in_memory"), joined)


def template_generation(manifest: Manifest, pack: PackMetadata) -> Generation:
    """What a generation of these shards is, but for its name: for benchmarks."""
    return generation_of("template", manifest.plan, pack, "template")
