"""Prometheus metrics of a job: a file for the textfile collector, or a push gateway.

All names begin with ``steelyard_``; all series have the labels ``command`` and ``alias``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from steelyard.errors import InputError, first_line, needs_extra
from steelyard.indexer.reporting.recorder import Event, Every, Recorder, Ticker
from steelyard.plugin.server_settings import read_login

with needs_extra("metrics"):
    from prometheus_client import CollectorRegistry, pushadd_to_gateway, write_to_textfile
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.exposition import basic_auth_handler, default_handler
    from prometheus_client.parser import text_string_to_metric_families
    from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client.metrics_core import Metric

USER, PASSWORD = "STEELYARD_PUSHGATEWAY_USER", "STEELYARD_PUSHGATEWAY_PASSWORD"
FILE_SECONDS = 10.0
PUSH_SECONDS = 15.0
_PUSH_TIMEOUT = 10.0
_LAST_SUCCESS = "steelyard_job_last_success_timestamp_seconds"

# Counters of ``steelyard.progress``: series, help, labels.
_COUNTERS = {
    "documents": ("steelyard_documents", "Documents by stage.", ("stage", "sink")),
    "passages": ("steelyard_passages", "Passages made of documents.", ("stage", "sink")),
    "retries": ("steelyard_retries", "Requests that were sent again.", ("sink",)),
    "clipped_weights": (
        "steelyard_clipped_weights",
        "Sparse weights cut to the largest impact.",
        ("sink",),
    ),
    "bytes": ("steelyard_bytes", "Bytes of the corpus read, and of shards written.", ("stage",)),
}


class JobMetrics(Collector):
    """A job's figures as Prometheus metrics, as they are when asked for.

    Args:
        recorder: whose job.
        command: its name.
        last_success: Unix time of an earlier run's; None when there is none.
    """

    def __init__(self, recorder: Recorder, command: str, last_success: float | None) -> None:
        self._recorder, self._command = recorder, command
        self._started = time.time()
        self._last_success = last_success
        self._exit_code: int | None = None
        self._seconds: float | None = None

    def end(self, exit_code: int) -> None:
        """The job is over."""
        self._exit_code, self._seconds = exit_code, self._recorder.seconds
        if exit_code == 0:
            self._last_success = time.time()

    @property
    def own_labels(self) -> dict[str, str]:
        """Of all series."""
        aliases = self._recorder.facts_named("alias")
        return {"command": self._command, "alias": ",".join(aliases)}

    def collect(self) -> Iterator[Metric]:
        """What Prometheus is shown."""
        yield from self._counters()
        yield from self._stages()
        running = self._exit_code is None
        seconds = self._recorder.seconds if self._seconds is None else self._seconds
        yield self._gauge("steelyard_job_running", "1 while the job runs.", float(running))
        yield self._gauge(
            "steelyard_job_start_timestamp_seconds", "When the job began.", self._started
        )
        yield self._gauge(
            "steelyard_job_heartbeat_timestamp_seconds", "When this was told.", time.time()
        )
        yield self._gauge(
            "steelyard_job_duration_seconds", "How long the job runs, or ran.", seconds
        )
        if self._exit_code is not None:
            yield self._gauge(
                "steelyard_job_exit_code", "Of the last run, 0 is success.", self._exit_code
            )
        if self._last_success is not None:
            yield self._gauge(
                _LAST_SUCCESS, "When a run ended with exit code 0.", self._last_success
            )

    def _counters(self) -> Iterator[Metric]:
        found: dict[tuple[str, tuple[str, ...]], dict[tuple[str, ...], float]] = {}
        helps: dict[str, str] = {}
        for (name, labels), n in self._recorder.counters.items():
            given = dict(labels)
            wanted = [_COUNTERS.get(name, (f"steelyard_{name}", name, tuple(given)))]
            if name == "documents" and "reason" in given:
                wanted.append(
                    ("steelyard_rejected_documents", "Rejected documents by reason.", ("reason",))
                )
            for series, text, names in wanted:
                helps[series] = text
                values = found.setdefault((series, names), {})
                key = tuple(given.get(each, "") for each in names)
                values[key] = values.get(key, 0) + n
        own = self.own_labels
        for (series, names), values in found.items():
            family = CounterMetricFamily(series, helps[series], labels=[*own, *names])
            for key, value in values.items():
                family.add_metric([*own.values(), *key], value)
            yield family

    def _stages(self) -> Iterator[Metric]:
        own = self.own_labels
        by_name: dict[str, tuple[float, float, float]] = {}
        for stage in self._recorder.stages:
            done, total, seconds = by_name.get(stage.name, (0.0, 0.0, 0.0))
            by_name[stage.name] = (
                done + stage.done,
                total + (stage.total or 0),
                seconds + stage.seconds,
            )
        told = (
            ("steelyard_stage_done", "Units done in a stage."),
            ("steelyard_stage_planned", "Units to do in a stage; 0 is unknown."),
            ("steelyard_stage_seconds", "Seconds spent in a stage."),
        )
        for position, (series, text) in enumerate(told):
            family = GaugeMetricFamily(series, text, labels=[*own, "stage"])
            for name, values in by_name.items():
                family.add_metric([*own.values(), name], values[position])
            yield family

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        own = self.own_labels
        family = GaugeMetricFamily(name, text, labels=list(own))
        family.add_metric(list(own.values()), value)
        return family


class MetricsFile:
    """A watcher that writes the metrics to a file, whole, now and then and at the end.

    Args:
        path: of the textfile collector's folder, ending in ``.prom``.
        recorder, command: as ``JobMetrics``.
        seconds: between two writes.

    Raises:
        InputError: it does not end in .prom, or cannot be written.
    """

    def __init__(
        self, path: Path, recorder: Recorder, command: str, seconds: float = FILE_SECONDS
    ) -> None:
        if path.suffix != ".prom":
            raise InputError(
                f"the metrics file {path} does not end in .prom",
                "the textfile collector reads no others",
            )
        self._path = path
        self.metrics = JobMetrics(recorder, command, _last_success(path))
        self._registry = _registry(self.metrics)
        self._every = Every(seconds)
        self.trouble = ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_to_textfile(str(path), self._registry)
        except OSError as error:
            raise InputError(
                f"cannot write the metrics file {path}: {error.strerror or error}",
                "choose a folder that can be written",
            ) from error

    def told(self, event: Event) -> None:
        """Write it, if the time has come."""
        if event.kind == "progress" and self._every.due():
            self._write()

    def end(self, exit_code: int) -> None:
        """The last state."""
        self.metrics.end(exit_code)
        self._write()

    def _write(self) -> None:
        try:
            write_to_textfile(str(self._path), self._registry)
            self.trouble = ""
        except OSError as error:
            self.trouble = f"cannot write {self._path}: {error.strerror or error}"


class MetricsPush:
    """Sends the metrics to a push gateway, now and then and at the end.

    A gateway that does not answer is tried again and never stops the job. The user and the
    password, if it asks for them, are in the environment.

    Args:
        url: of the gateway, http or https.
        recorder, command: as ``JobMetrics``.
        environment: where the login is; None is this process's.
        seconds: between two pushes.

    Raises:
        InputError: not such a URL, or it carries credentials.
    """

    def __init__(
        self,
        url: str,
        recorder: Recorder,
        command: str,
        environment: Mapping[str, str] | None = None,
        seconds: float = PUSH_SECONDS,
    ) -> None:
        self._url = url.rstrip("/")
        parts = urlsplit(url)
        if parts.username or parts.password:
            raise InputError(
                "the push gateway's URL carries credentials", f"set ${USER} and ${PASSWORD}"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(
                f"not the URL of a push gateway: {url!r}", "for example http://localhost:9091"
            )
        login = read_login(os.environ if environment is None else environment, USER, PASSWORD)
        self._handler = _handler(*login)
        # A push leaves metrics of other names alone, so an earlier run's success stays.
        self.metrics = JobMetrics(recorder, command, None)
        self._registry = _registry(self.metrics)
        self._ticker = Ticker(self._push, seconds)
        self.trouble = ""

    def start(self) -> None:
        """Begin to push."""
        self._ticker.start()

    def end(self, exit_code: int) -> None:
        """The last state."""
        self._ticker.stop()
        self.metrics.end(exit_code)
        self._push()

    def _push(self) -> None:
        try:
            pushadd_to_gateway(
                self._url,
                job="steelyard",
                registry=self._registry,
                grouping_key=self.metrics.own_labels,
                timeout=_PUSH_TIMEOUT,
                handler=self._handler,
            )
            self.trouble = ""
        except Exception as error:  # urllib's and http's many kinds
            self.trouble = f"cannot push metrics to {self._url}: {first_line(error)}"


def _registry(metrics: JobMetrics) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(metrics)
    return registry


def _handler(user: str | None, password: str | None) -> Callable[..., Callable[[], None]]:
    def send(
        url: str, method: str, timeout: float | None, headers: list[tuple[str, str]], data: bytes
    ) -> Callable[[], None]:
        if user is None or password is None:
            return default_handler(url, method, timeout, headers, data)
        return basic_auth_handler(url, method, timeout, headers, data, user, password)

    return send


def _last_success(path: Path) -> float | None:
    """What an earlier run wrote; a file that cannot be read says nothing."""
    try:
        families = list(text_string_to_metric_families(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
    values = [s.value for family in families for s in family.samples if s.name == _LAST_SUCCESS]
    return max(values, default=None)
