"""The job's log: one record an event, as text or as JSON, with what it belongs to.

Every record says job, alias, generation and stage. Records of this package's own loggers pass as
well, those of other packages do not: what fails in them is told by the error that is raised.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, Literal, TextIO

from steelyard.errors import InputError
from steelyard.indexer.reporting.json_lines import rounded
from steelyard.indexer.reporting.recorder import Event, Every, Recorder, written
from steelyard.indexer.reporting.redaction import redact
from steelyard.indexer.reporting.stages import StageState

Format = Literal["text", "json"]
FORMATS = ("text", "json")
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING,
          "error": logging.ERROR}  # fmt: skip

_NAME = "steelyard"
_PROGRESS_SECONDS = 30.0
_RETRY_SECONDS = 10.0


class JobLog:
    """A watcher that logs events under ``steelyard.job``.

    Starts, ends and messages are INFO, failed stages and requests that are sent again WARNING (at
    most one such record in ten seconds for each sink), the passing of time is DEBUG.

    Args:
        recorder: whose job.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._log = logging.getLogger(f"{_NAME}.job")
        self._every = Every(_PROGRESS_SECONDS)
        self._retries: dict[str, Every] = {}

    def told(self, event: Event) -> None:
        """Log it."""
        stage = event.stage
        if event.kind == "stage_started" and stage is not None:
            self._write(logging.INFO, "stage_started", f"{stage.name} begins", stage)
        elif event.kind == "stage_ended" and stage is not None:
            level = logging.WARNING if stage.failed else logging.INFO
            how = "failed after" if stage.failed else "done in"
            text = f"{stage.name}: {stage.done:,} {how} {stage.seconds:.1f} s"
            self._write(level, "stage_ended", text, stage)
        elif event.kind in ("message", "job_started", "job_ended"):
            self._write(logging.INFO, event.kind, event.text)
        elif event.kind == "retry":
            self._retry(dict(event.labels))
        elif event.kind == "progress" and self._every.due():
            for each in self._recorder.stages:
                if not each.ended:
                    self._write(logging.DEBUG, "progress", f"{each.name}: {each.done:,}", each)

    def failed(self, text: str, exit_code: int) -> None:
        """How the job failed."""
        self._log.error(text, extra={"event": "job_failed", "fields": {"exit_code": exit_code}})

    def _retry(self, labels: dict[str, str]) -> None:
        sink = labels.get("sink", "")
        if sink not in self._retries:
            self._retries[sink] = Every(_RETRY_SECONDS)
        elif not self._retries[sink].due():
            return
        total = self._recorder.total("retries", **({"sink": sink} if sink else {}))
        text = f"sent again{f' to {sink}' if sink else ''}: {total:,} requests so far"
        self._write(logging.WARNING, "retry", text, fields={"retries": total, **labels})

    def _write(
        self,
        level: int,
        event: str,
        text: str,
        stage: StageState | None = None,
        fields: dict[str, Any] | None = None,
    ) -> None:
        fields = dict(fields or {})
        named: dict[str, Any] = {"event": event, "fields": fields}
        if stage is not None:
            named["of_stage"] = stage.name
            fields |= {
                "done": stage.done,
                "total": stage.total,
                "seconds": rounded(stage.seconds),
                "rate": rounded(stage.rate),
            }
        if event in ("job_ended", "progress"):
            fields["counters"] = {written(*k): n for k, n in self._recorder.counters.items()}
        self._log.log(level, text, extra=named)


@contextmanager
def logging_to(
    recorder: Recorder, job: str, format: str, level: str, stream: TextIO | None = None
) -> Iterator[None]:
    """Inside, records of this package are written; those of other packages are as before.

    Args:
        recorder: of the job that records belong to.
        job: its id.
        format: text or json.
        level: debug, info, warning or error.
        stream: None is standard error, as it is when a record is written.

    Raises:
        InputError: no such format or level.
    """
    if format not in FORMATS:
        raise InputError(f"unknown log format {format!r}", f"known: {', '.join(FORMATS)}")
    if level not in LEVELS:
        raise InputError(f"unknown log level {level!r}", f"known: {', '.join(LEVELS)}")
    ours = _our_loggers()
    handler = _Handler(stream)
    handler.addFilter(_Context(recorder, job))
    handler.setFormatter(_JsonFormatter() if format == "json" else _TextFormatter())
    before = ours.level, ours.propagate, logging.getLoggerClass()
    ours.addHandler(handler)
    ours.setLevel(LEVELS[level])
    ours.propagate = False
    logging.setLoggerClass(_OurLogger)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.level, ours.propagate = before[:2]
        logging.setLoggerClass(before[2])


class _OurLogger(logging.Logger):
    """Not silenced by ``logging.disable``, which the command line uses against other packages."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        if self.name != _NAME and not self.name.startswith(f"{_NAME}."):
            return super().isEnabledFor(level)
        return not self.disabled and level >= self.getEffectiveLevel()


def _our_loggers() -> logging.Logger:
    """The root of our loggers; those that are there already become such as are not silenced."""
    root = logging.getLogger(_NAME)
    for name, logger in list(root.manager.loggerDict.items()):
        if (name == _NAME or name.startswith(f"{_NAME}.")) and type(logger) is logging.Logger:
            logger.__class__ = _OurLogger
    return root


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to standard error as it is now: bars may stand before it."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__(stream)
        self._follows = stream is None

    def emit(self, record: logging.LogRecord) -> None:
        if self._follows:
            self.stream = sys.stderr
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A log that cannot be written does not stop the job."""


class _Context(logging.Filter):
    """Gives each record what it belongs to."""

    def __init__(self, recorder: Recorder, job: str) -> None:
        super().__init__()
        self._recorder, self._job = recorder, job

    def filter(self, record: logging.LogRecord) -> bool:
        recorder = self._recorder
        record.context = {
            "job": self._job,
            "alias": ",".join(recorder.facts_named("alias")) or None,
            "generation": ",".join(recorder.facts_named("generation")) or None,
            "stage": getattr(record, "of_stage", None)
            or ", ".join(recorder.open_stages())
            or None,
        }
        return True


def _moment(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, timezone.utc)
    return moment.isoformat(timespec="milliseconds")


def _message(record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        text += f": {type(error).__name__}: {error}"
    return redact(text)


class _JsonFormatter(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, Any] = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": getattr(record, "event", None),
            "message": _message(record),
            **getattr(record, "context", {}),
            **getattr(record, "fields", {}),
        }
        return json.dumps(values, ensure_ascii=False, default=str)


class _TextFormatter(logging.Formatter):
    """Time, level, logger and message, then name=value; a line break in a message is shown."""

    def format(self, record: logging.LogRecord) -> str:
        values = {**getattr(record, "context", {}), **getattr(record, "fields", {})}
        values.pop("counters", None)
        pairs = " ".join(
            f"{name}={json.dumps(value) if ' ' in str(value) else value}"
            for name, value in values.items()
            if value is not None
        )
        message = _message(record).replace("\n", "\\n")
        return f"{_moment(record)} {record.levelname} {record.name}: {message} | {pairs}"
