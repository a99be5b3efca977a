"""Progress for programs: one JSON object a line.

Every line has ``time`` (UTC, ISO 8601), ``event``, ``job``, ``stage``, ``done``, ``total``,
``rate``, ``eta_seconds``, ``seconds`` and ``counters``; what does not apply is null. Lines of
``job_started``, ``message`` and ``job_ended`` have ``text`` too.
"""

from __future__ import annotations

import json
import sys
from typing import Any, TextIO

from steelyard.indexer.reporting.recorder import Event, Every, Recorder, written
from steelyard.indexer.reporting.redaction import redact
from steelyard.indexer.reporting.stages import StageState
from steelyard.indexer.reporting.times import utc_now

INTERVAL_SECONDS = 5.0


class JsonLines:
    """A watcher that writes events as they come, and every open stage now and then.

    Args:
        recorder: whose job.
        job: its id.
        stream: None is standard error, as it is when a line is written.
        seconds: between two lines of a stage.
    """

    def __init__(
        self,
        recorder: Recorder,
        job: str,
        stream: TextIO | None = None,
        seconds: float = INTERVAL_SECONDS,
    ) -> None:
        self._recorder, self._job, self._stream = recorder, job, stream
        self._every = Every(seconds)

    def told(self, event: Event) -> None:
        """Write a line, of the passing of time one for each open stage."""
        if event.kind in ("fact", "retry"):
            return
        if event.kind == "progress":
            if self._every.due():
                for stage in self._recorder.stages:
                    if not stage.ended:
                        self._write("progress", stage)
            return
        self._write(event.kind, event.stage, event.text)

    def _write(self, kind: str, stage: StageState | None, text: str = "") -> None:
        line: dict[str, Any] = {
            "time": utc_now(),
            "event": kind,
            "job": self._job,
            "stage": stage and stage.name,
            "done": stage and stage.done,
            "total": stage and stage.total,
            "rate": rounded(stage.rate) if stage else None,
            "eta_seconds": rounded(stage.eta_seconds) if stage else None,
            "seconds": rounded(stage.seconds if stage else self._recorder.seconds),
            "counters": {written(*key): n for key, n in self._recorder.counters.items()},
        }
        if text:
            line["text"] = redact(text)
        stream = self._stream or sys.stderr
        stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        stream.flush()


def rounded(value: float | None) -> float | None:
    """Three decimals will do."""
    return None if value is None else round(value, 3)
