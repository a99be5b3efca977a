"""A job under watch: bars or lines, ``job.json``, metrics, logs, and a report at the end."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import typer

from steelyard.cli.output import RichProgress, console, print_pairs, print_rows, status, write_json
from steelyard.errors import (
    InputError,
    InterruptedJobError,
    RejectedDocumentsError,
    SteelyardError,
)
from steelyard.indexer.reporting.final_report import REPORT, FinalReport, final_report
from steelyard.indexer.reporting.job_file import JOB, JobFile, JobRecord, Status
from steelyard.indexer.reporting.json_lines import JsonLines
from steelyard.indexer.reporting.log import JobLog, logging_to
from steelyard.indexer.reporting.processes import this_process
from steelyard.indexer.reporting.recorder import TICK_SECONDS, Event, Recorder, Ticker
from steelyard.indexer.reporting.redaction import redact_arguments
from steelyard.indexer.reporting.times import duration, utc_now
from steelyard.progress import ManyProgress, Progress

PROGRESS = ("auto", "rich", "json", "none")
UNEXPECTED = 70
"""Exit code of an error nobody planned for (EX_SOFTWARE)."""


class Job(ManyProgress):
    """The progress of a watched job.

    Attributes:
        id: of the job.
        result: what the command adds to ``--json`` and to ``report.json``.
        recorder: what was counted so far.
    """

    def __init__(self, id: str, recorder: Recorder, *shown: Progress) -> None:
        super().__init__(recorder, *shown)
        self.id, self.recorder = id, recorder
        self.result: dict[str, Any] = {}


@contextmanager
def watched(
    command: str,
    *,
    progress: str = "auto",
    metrics: Path | None = None,
    push_gateway: str | None = None,
    log_format: str | None = None,
    log_level: str = "info",
    fail_on_rejected: bool = False,
    json: Path | None = None,
    signals: bool = True,
) -> Iterator[Job]:
    """Watch a job: give what this yields to the work as its ``Progress``.

    The report is printed if the job is done, and
    written in every case: to ``json``, and beside the shards.

    Args:
        command: its name, for metrics and reports.
        progress: auto, rich, json or none; auto shows nothing beside a log.
        metrics, push_gateway: where Prometheus metrics go.
        log_format, log_level: of a log on standard error; None is none.
        fail_on_rejected: a job that rejected documents is an error.
        json: file for the report.
        signals: SIGTERM and SIGHUP stop the work as Ctrl-C does; False for work that sees to them.

    Raises:
        InputError: an option that cannot be used; nothing has begun.
        InterruptedJobError: a signal stopped the work.
        RejectedDocumentsError: see ``fail_on_rejected``.
    """
    if progress not in PROGRESS:
        raise InputError(f"unknown progress {progress!r}", f"known: {', '.join(PROGRESS)}")
    recorder, record = Recorder(), _begun(command)
    shown: list[Progress] = []
    if progress == "json":
        recorder.watch(JsonLines(recorder, record.id))
    elif progress == "rich" or (progress == "auto" and log_format is None):
        shown.append(RichProgress())
    job, file = Job(record.id, recorder, *shown), JobFile(recorder, record)
    with ExitStack() as stack:
        log = None
        if log_format is not None:
            stack.enter_context(logging_to(recorder, record.id, log_format, log_level))
            log = JobLog(recorder)
            recorder.watch(log)
        metered = _metered(recorder, command, metrics, push_gateway)
        recorder.watch(file)
        if signals:
            stack.enter_context(_signals())
        ticker = Ticker(lambda: recorder.tell(Event("progress")), TICK_SECONDS)
        recorder.tell(Event("job_started", text=f"{command} begins"))
        ticker.start()
        failure: BaseException | None = None
        try:
            yield job
            rejected = recorder.total("documents", stage="rejected")
            rejected += recorder.total("documents", stage="refused")
            if fail_on_rejected and rejected:
                raise RejectedDocumentsError(
                    f"done, but {rejected:,} documents were rejected",
                    f"see {(file.folder or Path()) / 'rejected.jsonl'}",
                )
        except BaseException as error:
            failure = _told(error)
        ticker.stop()
        how, code = _outcome(failure)
        said = None if failure is None else str(failure) or type(failure).__name__
        file.end(how, code, said)
        if log is not None and failure is not None:
            log.failed(said or how, code)
        took = duration(recorder.seconds)
        recorder.tell(Event("job_ended", text=f"{command}: {how} after {took}, exit code {code}"))
        for one in metered:
            one.end(code)
            if one.trouble:
                job.say(one.trouble)
        report = final_report(recorder, file.job)
        _keep(report, job, file, json, strict=failure is None)
        if how == "done":
            print_report(report, file.folder)
        if failure is not None:
            raise failure


def print_report(report: FinalReport, folder: Path | None) -> None:
    """The end of a job, for people."""
    documents = report.documents
    rejected = f"{documents['rejected']:,}"
    if documents["rejected"] and folder is not None:
        rejected += f" (see {folder / 'rejected.jsonl'})"
    reused = documents["reused"]
    rows = {
        "read": f"{documents['read']:,}",
        "encoded": f"{documents['encoded']:,}"
        + (f" ({reused:,} by an earlier run)" if reused else ""),
        "passages": f"{documents['passages']:,}" if "passages" in documents else "",
        "rejected": rejected,
        "sent again": f"{report.retries:,} requests" if report.retries else "",
        "weights clipped": f"{report.clipped_weights:,}" if report.clipped_weights else "",
        "shards": str(folder or ""),
        "took": duration(report.seconds),
    }
    for sink in report.sinks:
        written = f"{sink.indexed:,} written" if sink.indexed else "already there"
        told = [sink.generation or "", written]
        told.append(f"{sink.refused:,} refused by the engine" if sink.refused else "")
        told.append("" if sink.count is None else f"{sink.count:,} in the engine")
        rows[sink.sink] = ", ".join(filter(None, told))
    for mismatch in report.mismatches:
        rows["does not add up"] = mismatch
    print_pairs({name: value for name, value in rows.items() if value})
    if report.stages:
        print_rows(
            "",
            ["stage", "done", "seconds", "a second"],
            [
                [
                    stage.name,
                    f"{stage.done:,}" if stage.done else "",
                    f"{stage.seconds:.1f}",
                    f"{stage.rate:,.1f}" if stage.rate else "",
                ]
                for stage in report.stages
            ],
        )
    for reason, count in report.rejected_reasons.items():
        console.print(f"  rejected {count:,}: {reason}", markup=False)


class _StoppedError(KeyboardInterrupt):
    """A signal other than Ctrl-C's, raised where the work is."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def _signals() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP raise ``_StoppedError``; the second one ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        del frame
        signal.signal(number, signal.SIG_DFL)
        raise _StoppedError(number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] != signal.SIG_IGN:  # nohup
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _begun(command: str) -> JobRecord:
    process, now = this_process(), utc_now()
    moment = datetime.now(timezone.utc).strftime("%Y%m%d%H%M%S")
    return JobRecord(
        id=f"{moment}_{secrets.token_hex(4)}",
        command=command,
        arguments=["steelyard", *redact_arguments(sys.argv[1:])],
        directory=str(Path.cwd()),
        host=process.host,
        place=process.place,
        pid=process.pid,
        process_start=process.start,
        started=now,
        heartbeat=now,
    )


def _metered(
    recorder: Recorder, command: str, file: Path | None, gateway: str | None
) -> list[Any]:
    """Where metrics go; each has ``end`` and ``trouble``."""
    if file is None and gateway is None:
        return []
    from steelyard.indexer.reporting.metrics import MetricsFile, MetricsPush

    found: list[Any] = []
    if gateway is not None:
        push = MetricsPush(gateway, recorder, command)
        found.append(push)
    if file is not None:
        to_file = MetricsFile(file, recorder, command)
        recorder.watch(to_file)
        found.append(to_file)
    if gateway is not None:
        push.start()
    return found


def _told(error: BaseException) -> BaseException:
    """An interruption as an error that says how to go on; others as they are."""
    if not isinstance(error, KeyboardInterrupt):
        return error
    number = error.number if isinstance(error, _StoppedError) else int(signal.SIGINT)
    told = InterruptedJobError(number)
    told.__cause__ = error
    return told


def _outcome(failure: BaseException | None) -> tuple[Status, int]:
    match failure:
        case None:
            return "done", 0
        case RejectedDocumentsError():
            return "done", failure.exit_code
        case SteelyardError() if failure.exit_code > 128:
            return "interrupted", failure.exit_code
        case SteelyardError() | typer.Exit():
            return "failed", failure.exit_code
        case OSError():
            return "failed", 1
        case SystemExit(code=int(code)):
            return "failed", code
        case _:
            return "failed", UNEXPECTED


def _keep(
    report: FinalReport, job: Job, file: JobFile, json: Path | None, *, strict: bool
) -> None:
    """Write the report; where the job failed, its error matters more than one in here."""
    value = {**job.result, "job": report.as_json()}
    try:
        write_json(value, json)
        if file.path is not None:
            name = REPORT if file.path.name == JOB else f"report-{report.job}.json"
            write_json(value, file.path.with_name(name))
    except OSError as error:
        if strict:
            raise
        status.print(f"  no report: {os.strerror(error.errno or 0)}", markup=False)
