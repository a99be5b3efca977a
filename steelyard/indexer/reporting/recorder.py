"""What a job did so far: stages, counters, facts; and who is told of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from steelyard.indexer.reporting.reasons import reason_kind
from steelyard.indexer.reporting.stages import Stage, StageState

Kind = Literal[
    "job_started", "stage_started", "progress", "stage_ended", "message", "fact", "retry",
    "job_ended",
]  # fmt: skip

TICK_SECONDS = 1.0
_MOST_REASONS = 50

Labels = tuple[tuple[str, str], ...]
"""Of a counter or a fact: names and values, ascending."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that watchers are told.

    Attributes:
        kind: what; ``progress`` comes about once a second and means that time has passed.
        stage: of ``stage_started`` and ``stage_ended``.
        text: of ``message``, in words.
        labels: of ``retry``.
    """

    kind: Kind
    stage: StageState | None = None
    text: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


class Watcher(Protocol):
    """Told of a job, one event at a time. What it cannot write must not stop the job."""

    def told(self, event: Event) -> None:
        """Something has happened."""


class Recorder:
    """A ``Progress`` that remembers, and tells watchers.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._lock = threading.RLock()
        self._telling = threading.RLock()
        self._stages: list[Stage] = []
        self._counters: dict[tuple[str, Labels], int] = {}
        self._facts: dict[tuple[str, Labels], str | int] = {}
        self._watchers: list[Watcher] = []
        self._mine = threading.local()

    def watch(self, watcher: Watcher) -> None:
        """Tell this one too, from now on."""
        self._watchers.append(watcher)

    def tell(self, event: Event) -> None:
        """Tell everybody, one event after the other."""
        with self._telling:
            for watcher in list(self._watchers):
                try:
                    watcher.told(event)
                except OSError:  # a closed pipe, a full disk: nobody is there to be told
                    self._watchers.remove(watcher)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Measure a stage."""
        stage = Stage(name, total, self._clock)
        with self._lock:
            self._stages.append(stage)
        mine = self._mine.__dict__.setdefault("stages", [])
        mine.append(name)
        self.tell(Event("stage_started", stage.state()))
        failed = True
        try:
            yield stage.advance
            failed = False
        finally:
            stage.end(failed=failed)
            mine.remove(name)
            self.tell(Event("stage_ended", stage.state()))

    def say(self, text: str) -> None:
        """Pass it on."""
        self.tell(Event("message", text=text))

    def count(self, name: str, n: int = 1, **labels: str) -> None:
        """Add to a counter; reasons are counted by kind."""
        told = dict(labels)
        if "reason" in labels:
            labels["reason"] = reason_kind(labels["reason"])
        with self._lock:
            if (
                "reason" in labels
                and self._is_new(name, labels)
                and self._reasons(name) >= (_MOST_REASONS)
            ):
                labels["reason"] = "other"
            key = (name, _labels(labels))
            self._counters[key] = self._counters.get(key, 0) + n
        if name == "retries" and n:
            self.tell(Event("retry", labels=told))

    def fact(self, name: str, value: str | int, **labels: str) -> None:
        """Remember it."""
        with self._lock:
            self._facts[name, _labels(labels)] = value
        self.tell(Event("fact", text=name))

    @property
    def seconds(self) -> float:
        """Since the job began."""
        return self._clock() - self._began

    @property
    def stages(self) -> list[StageState]:
        """All stages, those that ended too, in the order in which they began."""
        with self._lock:
            stages = list(self._stages)
        return [stage.state() for stage in stages]

    @property
    def counters(self) -> dict[tuple[str, Labels], int]:
        """All counters by name and labels."""
        with self._lock:
            return dict(self._counters)

    @property
    def facts(self) -> dict[tuple[str, Labels], str | int]:
        """All facts by name and labels."""
        with self._lock:
            return dict(self._facts)

    def facts_named(self, name: str) -> list[str]:
        """The different values of one fact, in the order in which they were said."""
        found = (str(value) for (each, _), value in self.facts.items() if each == name)
        return list(dict.fromkeys(found))

    def total(self, name: str, **labels: str) -> int:
        """Sum of a counter over all its labels that include these."""
        wanted = set(_labels(labels))
        return sum(
            n for (each, its), n in self.counters.items() if each == name and wanted <= {*its}
        )

    def open_stages(self) -> list[str]:
        """The innermost stage that this thread opened, else all that are open."""
        mine: list[str] = self._mine.__dict__.get("stages", [])
        return mine[-1:] or [stage.name for stage in self.stages if not stage.ended]

    def _is_new(self, name: str, labels: dict[str, str]) -> bool:
        return (name, _labels(labels)) not in self._counters

    def _reasons(self, name: str) -> int:
        return sum(
            1 for each, labels in self._counters if each == name and dict(labels).get("reason")
        )


class Ticker:
    """Calls something again and again until it is stopped, on a thread of its own.

    Args:
        call: what.
        seconds: between two calls.
    """

    def __init__(self, call: Callable[[], None], seconds: float) -> None:
        self._call, self._seconds = call, seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="steelyard-ticker", daemon=True)

    def start(self) -> None:
        """Begin; the first call comes after the first pause."""
        self._thread.start()

    def stop(self) -> None:
        """No call begins after this; one that runs is waited for."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            self._call()


class Every:
    """Lets something pass at most once in so many seconds."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._last = clock()

    def due(self) -> bool:
        """Whether it is time; if so, the time counts from now."""
        now = self._clock()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True


def written(name: str, labels: Labels) -> str:
    """A counter's name as one word: ``documents{stage=read}``."""
    return name + ("{" + ",".join(f"{k}={v}" for k, v in labels) + "}" if labels else "")


def _labels(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted(labels.items()))
