"""``job.json``: what a job is doing, beside its shards, for whoever looks from outside."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Literal

from steelyard.encoders.whole_file import whole_file
from steelyard.errors import InputError, needs_extra
from steelyard.indexer.reporting.processes import ProcessIdentity, is_alive
from steelyard.indexer.reporting.recorder import Event, Every, Recorder, written
from steelyard.indexer.reporting.redaction import redact
from steelyard.indexer.reporting.times import seconds_since, utc_now

with needs_extra("index"):
    from pydantic import BaseModel, ConfigDict, ValidationError

JOB = "job.json"
HEARTBEAT_SECONDS = 5.0
SILENT_SECONDS = 60.0
"""A job of another machine that has said nothing for so long is taken for dead."""

Status = Literal["running", "done", "failed", "interrupted"]
Seen = Literal["running", "done", "failed", "interrupted", "dead", "silent"]
"""As ``Status``; dead: its process is gone without a word; silent: it cannot be seen from here,
and its last word is old."""


class StageRecord(BaseModel):
    """A stage as ``StageState`` has it."""

    model_config = ConfigDict(frozen=True)

    name: str
    done: int
    total: int | None
    seconds: float
    rate: float | None
    eta_seconds: float | None
    ended: bool


class JobRecord(BaseModel):
    """What ``job.json`` holds; fields that a newer version adds are let pass.

    Attributes:
        arguments: the command line without secrets; ``directory``: where it was called.
        place, pid, process_start: see ``ProcessIdentity``.
        heartbeat: when this was written; comes every ``heartbeat_seconds``.
        facts, counters: by name and labels, ``generation{sink=...}``.
    """

    model_config = ConfigDict(frozen=True)

    format: int = 1
    id: str
    command: str
    arguments: list[str]
    directory: str
    host: str
    place: str
    pid: int
    process_start: str | None
    started: str
    heartbeat: str
    heartbeat_seconds: float = HEARTBEAT_SECONDS
    ended: str | None = None
    status: Status = "running"
    exit_code: int | None = None
    error: str | None = None
    stages: list[StageRecord] = []
    counters: dict[str, int] = {}
    facts: dict[str, str | int] = {}

    @property
    def process(self) -> ProcessIdentity:
        """Who does it."""
        return ProcessIdentity(self.host, self.place, self.pid, self.process_start)

    @property
    def seen(self) -> Seen:
        """How it stands, as far as this machine can tell."""
        if self.status != "running":
            return self.status
        alive = is_alive(self.process)
        if alive is None:
            age = seconds_since(self.heartbeat)
            return "running" if age < max(SILENT_SECONDS, 6 * self.heartbeat_seconds) else "silent"
        return "running" if alive else "dead"


class JobFile:
    """A watcher that keeps ``job.json`` up to date, from the moment that the folder is known.

    Two jobs may use the same shards at once, for two engines: the second one writes
    ``job-<its id>.json``. A file that cannot be written is tried again, and never stops the job.

    Args:
        recorder: whose job.
        job: as it began.
        seconds: between two heartbeats.
    """

    def __init__(
        self, recorder: Recorder, job: JobRecord, seconds: float = HEARTBEAT_SECONDS
    ) -> None:
        self._recorder = recorder
        self.job = job.model_copy(update={"heartbeat_seconds": seconds})
        self.path: Path | None = None
        self._every = Every(seconds)

    @property
    def folder(self) -> Path | None:
        """Where it is kept; None while that is not known."""
        return None if self.path is None else self.path.parent

    def told(self, event: Event) -> None:
        """Write it down, if this changes much or the time has come."""
        if event.kind == "fact" and event.text == "shards":
            self._settle(Path(self._recorder.facts_named("shards")[-1]))
        if event.kind != "progress" or self._every.due():
            self._write()

    def end(self, status: Status, exit_code: int, error: str | None) -> None:
        """The last word."""
        self.job = self.job.model_copy(
            update={
                "status": status,
                "exit_code": exit_code,
                "error": None if error is None else redact(error),
                "ended": utc_now(),
            }
        )
        self._write()

    def _settle(self, folder: Path) -> None:
        if self.folder == folder or not folder.is_dir():
            return
        path = folder / JOB
        with contextlib.suppress(InputError):
            for other, record in job_files(folder):
                if record.id == self.job.id:
                    continue
                if other == path and record.seen == "running":
                    path = folder / f"job-{self.job.id}.json"
                elif other.name != JOB and record.seen == "done":
                    other.unlink(missing_ok=True)
        self.path = path

    def _write(self) -> None:
        if self.path is None:
            return
        recorder = self._recorder
        self.job = self.job.model_copy(
            update={
                "heartbeat": utc_now(),
                "stages": [
                    StageRecord(
                        name=stage.name,
                        done=stage.done,
                        total=stage.total,
                        seconds=round(stage.seconds, 3),
                        rate=stage.rate and round(stage.rate, 3),
                        eta_seconds=stage.eta_seconds and round(stage.eta_seconds, 1),
                        ended=stage.ended,
                    )
                    for stage in recorder.stages
                ],
                "counters": {written(*key): n for key, n in recorder.counters.items()},
                "facts": {written(*key): value for key, value in recorder.facts.items()},
            }
        )
        with contextlib.suppress(OSError), whole_file(self.path) as stream:
            stream.write((self.job.model_dump_json(indent=2) + "\n").encode())


def job_files(folder: Path) -> list[tuple[Path, JobRecord]]:
    """The jobs that wrote something down in a folder, the newest first.

    Raises:
        InputError: a file is damaged.
    """
    found = []
    for path in folder.glob("job*.json"):
        if not re.fullmatch(r"job(-.+)?\.json", path.name):
            continue
        try:
            found.append((path, JobRecord.model_validate_json(path.read_bytes())))
        except FileNotFoundError:
            continue
        except ValidationError as error:
            raise InputError(
                f"{path} is damaged: {error.error_count()} fields do not fit",
                "delete this file: the shards do not need it",
            ) from error
    return sorted(found, key=lambda one: one[1].started, reverse=True)
