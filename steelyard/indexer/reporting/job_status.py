"""How a job stands that keeps its shards in a folder, what is missing, and what continues it."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from steelyard.config import cache_dir
from steelyard.errors import InputError
from steelyard.indexer.encoding.manifest import JOURNAL, MANIFEST, REJECTED
from steelyard.indexer.reporting.job_file import JobRecord, Seen, job_files
from steelyard.indexer.reporting.redaction import redact
from steelyard.indexer.reporting.times import duration, seconds_since

SINKS = "sinks"


@dataclass(frozen=True, slots=True)
class ShardsState:
    """What a folder of shards holds.

    Attributes:
        shards, documents: finished so far; documents in them.
        complete: everything is encoded.
        rejected: lines in rejected.jsonl.
    """

    shards: int
    documents: int
    complete: bool
    rejected: int


@dataclass(frozen=True, slots=True)
class SinkState:
    """What a sink's journal says.

    Attributes:
        journal: name of the file.
        sink: the engine.
        generation: being built, or built.
        shards: acknowledged by the engine.
        steps: done after the last shard, in order.
    """

    journal: str
    sink: str
    generation: str | None
    shards: int
    steps: list[str]


@dataclass(frozen=True, slots=True)
class FolderStatus:
    """Everything about one folder of shards.

    Attributes:
        jobs: that wrote something down there, the newest first, and how each stands.
        missing: what is not done, in words; empty is done.
        continue_with: command line that goes on; None when nothing is to be done, or it runs.
    """

    folder: Path
    jobs: list[tuple[JobRecord, Seen]]
    shards: ShardsState | None
    sinks: list[SinkState]
    missing: list[str]
    continue_with: str | None

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "folder": str(self.folder),
            "jobs": [{**record.model_dump(), "seen": seen} for record, seen in self.jobs],
            "shards": None if self.shards is None else asdict(self.shards),
            "sinks": [asdict(sink) for sink in self.sinks],
            "missing": self.missing,
            "continue_with": self.continue_with,
        }


def cached_folders() -> list[Path]:
    """Folders of shards in the cache."""
    places = (cache_dir() / "shards").glob("*")
    return sorted(place for place in places if place.is_dir())


def folder_status(folder: Path) -> FolderStatus:
    """Look at a folder; nothing is locked or changed.

    Raises:
        InputError: no such folder, or nothing of a job in it.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}", "give a folder of shards, or --to URL")
    jobs = [(record, record.seen) for _, record in job_files(folder)]
    shards = _shards(folder)
    if not jobs and shards is None:
        raise InputError(
            f"{folder} holds neither a job nor shards", "give the --shards folder of a job"
        )
    journals = sorted((folder / SINKS).glob("*.jsonl"))
    sinks = [_sink(path) for path in journals if not path.name.endswith(".rejected.jsonl")]
    missing = _missing(jobs, shards, sinks)
    going = any(seen == "running" for _, seen in jobs)
    stopped = next((record for record, seen in jobs if seen in _DID), None)
    return FolderStatus(
        folder=folder,
        jobs=jobs,
        shards=shards,
        sinks=sinks,
        missing=missing,
        continue_with=None if stopped is None or going else command_line(stopped),
    )


def command_line(record: JobRecord) -> str:
    """What to type to go on."""
    return f"cd {shlex.quote(record.directory)} && {shlex.join(record.arguments)}"


def _shards(folder: Path) -> ShardsState | None:
    lines = _lines(folder / JOURNAL)
    complete = (folder / MANIFEST).is_file()
    if not lines and not complete:
        return None
    entries = [line for line in lines if "documents" in line and "name" in line]
    return ShardsState(
        shards=len(entries),
        documents=sum(int(entry["documents"]) for entry in entries),
        complete=complete,
        rejected=len(_lines(folder / REJECTED)),
    )


def _sink(path: Path) -> SinkState:
    sink, generation, shards, steps = "", None, 0, []
    for line in _lines(path):
        sink = str(line.get("sink", sink))
        generation = line.get("generation", generation)
        if "step" in line:
            steps.append(str(line["step"]))
        elif "shard" in line:
            shards += 1
    if isinstance(generation, str) and generation.startswith("{"):
        generation = json.loads(generation).get("name")
    name = None if generation is None else str(generation)
    return SinkState(path.name, redact(sink), name, shards, steps)


def _missing(
    jobs: list[tuple[JobRecord, Seen]], shards: ShardsState | None, sinks: list[SinkState]
) -> list[str]:
    found = []
    if shards is None:
        if all(seen != "done" for _, seen in jobs):
            found.append("no shard is encoded yet")
    elif not shards.complete:
        found.append(f"encoding is not complete: {shards.documents:,} documents are in shards")
    found += [
        f"{sink.generation or sink.journal} is not published: {sink.shards:,} of "
        f"{shards.shards:,} shards loaded" + (f", {sink.steps[-1]}" if sink.steps else "")
        for sink in sinks
        if "published" not in sink.steps and shards is not None
    ]
    for record, seen in jobs:
        if seen not in _DID:
            continue
        began = f"job {record.id} ({record.command}) {_DID[seen]}"
        if record.error:
            began += f": {record.error}"
        elif seen in ("dead", "silent"):
            began += f" {duration(seconds_since(record.heartbeat))} ago"
        found.append(began)
    return found


_DID = {
    "dead": "ended without a word; its last was",
    "silent": "cannot be seen from here; its last word was",
    "failed": "failed",
    "interrupted": "was interrupted",
}


def _lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a JSON Lines file, without torn ones; a job may be writing to it."""
    found = []
    try:
        data = path.read_bytes()
    except OSError:
        return []
    for line in data.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found
