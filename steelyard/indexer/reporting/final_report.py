"""What a job did, when it is over: counts that add up, time by stage, why it rejected what."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass

from steelyard.indexer.reporting.job_file import JobRecord
from steelyard.indexer.reporting.recorder import Recorder

REPORT = "report.json"
_TOP_REASONS = 10


@dataclass(frozen=True, slots=True)
class StageReport:
    """One stage, all of the same name together; ``rate`` is units a second."""

    name: str
    done: int
    seconds: float
    rate: float | None


@dataclass(frozen=True, slots=True)
class SinkReport:
    """What went to one engine.

    Attributes:
        sink: its name in the job.
        alias, generation: None when the job did not say.
        indexed, refused: written, and not taken by the engine, as the job counted.
        count: the engine's own count; None when it was not asked.
        retries, clipped_weights: of this sink.
    """

    sink: str
    alias: str | None
    generation: str | None
    indexed: int
    refused: int
    count: int | None
    retries: int
    clipped_weights: int


@dataclass(frozen=True, slots=True)
class FinalReport:
    """A job's end.

    Attributes:
        documents: read, encoded, reused, rejected; passages, if documents were split.
        mismatches: sums that do not add up, in words; empty is good.
        rejected_reasons: the most frequent ones, and how many.
        seconds: all of it.
    """

    job: str
    command: str
    status: str
    exit_code: int
    error: str | None
    started: str
    ended: str | None
    seconds: float
    documents: dict[str, int]
    mismatches: list[str]
    rejected_reasons: dict[str, int]
    retries: int
    clipped_weights: int
    bytes: dict[str, int]
    stages: list[StageReport]
    sinks: list[SinkReport]

    def as_json(self) -> dict[str, object]:
        """For files."""
        return asdict(self)


def final_report(recorder: Recorder, job: JobRecord) -> FinalReport:
    """Sum up.

    Args:
        recorder: what was counted.
        job: as it ended.
    """
    documents = {
        stage: recorder.total("documents", stage=stage)
        for stage in ("read", "encoded", "reused", "rejected")
    }
    if passages := recorder.total("passages"):
        documents["passages"] = passages
    sinks = _sinks(recorder)
    reasons: Counter[str] = Counter()
    for (name, labels), n in recorder.counters.items():
        if name == "documents" and "reason" in (named := dict(labels)):
            reasons[named["reason"]] += n
    return FinalReport(
        job=job.id,
        command=job.command,
        status=job.status,
        exit_code=job.exit_code or 0,
        error=job.error,
        started=job.started,
        ended=job.ended,
        seconds=round(recorder.seconds, 3),
        documents=documents,
        mismatches=_mismatches(documents, sinks) if job.status == "done" else [],
        rejected_reasons=dict(reasons.most_common(_TOP_REASONS)),
        retries=recorder.total("retries"),
        clipped_weights=recorder.total("clipped_weights"),
        bytes={
            stage: n
            for stage in ("read", "written")
            if (n := recorder.total("bytes", stage=stage))
        },
        stages=_stages(recorder),
        sinks=sinks,
    )


def _stages(recorder: Recorder) -> list[StageReport]:
    found: dict[str, tuple[int, float]] = {}
    for stage in recorder.stages:
        done, seconds = found.get(stage.name, (0, 0.0))
        found[stage.name] = (done + stage.done, seconds + stage.seconds)
    return [
        StageReport(
            name, done, round(seconds, 3), round(done / seconds, 3) if done and seconds else None
        )
        for name, (done, seconds) in found.items()
    ]


def _sinks(recorder: Recorder) -> list[SinkReport]:
    facts = recorder.facts
    names = [
        *(dict(labels).get("sink") for _, labels in facts),
        *(dict(labels).get("sink") for _, labels in recorder.counters),
    ]
    found = []
    for sink in dict.fromkeys(name for name in names if name):

        def told(name: str, sink: str = sink) -> str | int | None:
            return facts.get((name, (("sink", sink),)))

        alias, generation, count = told("alias"), told("generation"), told("count")
        found.append(
            SinkReport(
                sink,
                None if alias is None else str(alias),
                None if generation is None else str(generation),
                recorder.total("documents", stage="indexed", sink=sink),
                recorder.total("documents", stage="refused", sink=sink),
                None if count is None else int(count),
                recorder.total("retries", sink=sink),
                recorder.total("clipped_weights", sink=sink),
            )
        )
    return found


def _mismatches(documents: dict[str, int], sinks: list[SinkReport]) -> list[str]:
    read, encoded, rejected = (documents[name] for name in ("read", "encoded", "rejected"))
    found = []
    if read and read != encoded + rejected:
        found.append(f"read {read:,}, but encoded {encoded:,} and rejected {rejected:,}")
    stored = documents.get("passages", encoded)
    for sink in sinks:
        written = sink.indexed + sink.refused
        if stored and written and written != stored:
            found.append(
                f"{sink.sink}: indexed {sink.indexed:,} and refused {sink.refused:,} of {stored:,}"
            )
        if sink.count is not None and sink.indexed and sink.count != sink.indexed:
            found.append(f"{sink.sink}: the engine counts {sink.count:,}, sent {sink.indexed:,}")
    return found
