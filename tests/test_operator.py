"""What an operator sees of a job: progress, metrics, logs, job.json, reports and exit codes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from steelyard.cli.output import RichProgress
from steelyard.errors import InputError
from steelyard.indexer.reporting.final_report import final_report
from steelyard.indexer.reporting.job_file import JOB, JobFile, JobRecord, job_files
from steelyard.indexer.reporting.job_status import folder_status
from steelyard.indexer.reporting.metrics import PASSWORD, USER, MetricsFile, MetricsPush
from steelyard.indexer.reporting.processes import is_alive, this_process
from steelyard.indexer.reporting.reasons import reason_kind
from steelyard.indexer.reporting.recorder import Event, Recorder
from steelyard.indexer.reporting.redaction import redact, redact_arguments
from steelyard.indexer.reporting.stages import Stage
from steelyard.indexer.reporting.times import duration
from tests.conftest import ROOT
from tests.watched_job import work

SECRET = "hunter22"  # noqa: S105
BIN = Path(sys.executable).parent / "steelyard"


def start(folder: Path, *arguments: object, env: dict[str, str] | None = None) -> Any:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.watched_job", str(folder), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "160", **(env or {})},
        # Whoever runs the tests in the background ignores it, and that is inherited.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def run(
    folder: Path, *arguments: object, env: dict[str, str] | None = None
) -> tuple[int, str, str]:
    process = start(folder, *arguments, env=env)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_rate_is_that_of_the_last_minute() -> None:
    clock = Clock()
    stage = Stage("encode", 20_000, clock)
    assert stage.state().rate is None
    clock.now += 1
    stage.advance(10_000)  # what an earlier run had done
    for _ in range(100):
        clock.now += 1
        stage.advance(10)
    state = stage.state()
    assert state.rate == pytest.approx(10)
    assert state.eta_seconds == pytest.approx((20_000 - 11_000) / 10)
    clock.now += 60  # nothing comes any more
    assert stage.state().rate == pytest.approx(0)
    assert stage.state().eta_seconds is None
    stage.end()
    assert stage.state().rate == pytest.approx(11_000 / 161)


def test_several_stages_are_shown_at_once() -> None:
    shown = io.StringIO()
    progress = RichProgress(Console(file=shown, force_terminal=True, width=120, highlight=False))
    with progress.stage("encode documents", 10) as encoded:
        encoded(5)
        with progress.stage("load documents", 10) as loaded:
            loaded(2)
            progress.count("documents", 3, stage="rejected", reason="empty text")
            assert progress._bars is not None
            progress._bars.refresh()
            frame = shown.getvalue().rpartition("encode documents")[2]
            assert "5/10" in frame
            assert "load documents" in frame
            assert "2/10" in frame
            assert "rejected 3" in frame
    assert progress._bars is None
    assert "load documents: 2 in" in shown.getvalue()


def test_stages_in_threads_and_lines_without_a_terminal() -> None:
    shown = io.StringIO()
    progress = RichProgress(Console(file=shown, width=200, highlight=False), seconds=0.05)
    both = threading.Barrier(2)

    def stage(name: str) -> None:
        with progress.stage(name, 100) as advance:
            for _ in range(50):
                advance(1)
            both.wait()
            wait_for(lambda: f"  {name}: 50 of 100" in shown.getvalue(), f"a line of {name}")
            both.wait()

    threads = [threading.Thread(target=stage, args=(name,)) for name in ("encode", "load")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shown.getvalue().count(": 50 in ") == 2
    assert progress._ticker is None


def test_counters_and_reasons_of_many_threads() -> None:
    recorder = Recorder()

    def count() -> None:
        for number in range(500):
            recorder.count(
                "documents", 1, stage="rejected", reason=f"duplicate id, first {number}"
            )
            recorder.count("odd", 1, reason="x" * (number % 55 + 1))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorder.total("documents") == 2000
    assert [dict(labels) for (name, labels) in recorder.counters if name == "documents"] == [
        {"stage": "rejected", "reason": "duplicate id"}
    ]
    odd = [dict(labels)["reason"] for (name, labels) in recorder.counters if name == "odd"]
    assert len(odd) == 51
    assert "other" in odd
    assert recorder.total("odd") == 2000


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("duplicate id, first on line 17", "duplicate id"),
        ("not UTF-8 at byte 300", "not UTF-8"),
        ("too large: 10,000,000 bytes, at most 1,000,000", "too large"),
        ("broken JSON: Expecting value: line 1 column 2 (char 1)", "broken JSON"),
        ("metadata field price: expected float, found str", "metadata field price"),
        ("id of 600 bytes, at most 512", "id of N bytes"),
        ("title is not a string but int", "title is not a string but int"),
        ("", "unknown"),
    ],
)
def test_reasons_by_kind(reason: str, kind: str) -> None:
    assert reason_kind(reason) == kind


def test_nothing_secret_is_shown() -> None:
    environment = {
        "STEELYARD_OPENSEARCH_PASSWORD": "s3cret-word",
        "TOKENIZERS_PARALLELISM": "false",
    }
    assert redact("opensearch://u:p@h:1/x", {}) == "opensearch://***@h:1/x"
    assert redact("https://u:p@h/ and http://x@y/", {}) == "https://***@h/ and http://***@y/"
    assert SECRET not in redact(f'{{"password": "{SECRET}"}}', {})
    assert SECRET not in redact(f"Authorization: Basic {SECRET}", {})
    assert SECRET not in redact(f"api_key={SECRET}&x=1", {})
    assert redact("said s3cret-word, false", environment) == "said ***, false"
    assert redact("padded tokens: 4096", {}) == "padded tokens: 4096"
    assert redact_arguments(
        ["index", "--api-key", SECRET, f"--token={SECRET}", "--batch-tokens", "4096"], {}
    ) == ["index", "--api-key", "***", "--token=***", "--batch-tokens", "4096"]


def test_sums_that_do_not_add_up_are_told() -> None:
    recorder = Recorder()
    recorder.count("documents", 10, stage="read")
    recorder.count("documents", 8, stage="encoded")
    recorder.count("documents", 1, stage="rejected", reason="empty text")
    recorder.count("documents", 6, stage="indexed", sink="a")
    recorder.count("documents", 1, stage="refused", sink="a", reason="too deep")
    recorder.fact("count", 5, sink="a")
    me = this_process()
    job = JobRecord(
        id="one", command="index", arguments=[], directory="/", host=me.host, place=me.place,
        pid=me.pid, process_start=me.start, started="2026-01-01T00:00:00+00:00",
        heartbeat="2026-01-01T00:00:00+00:00", status="done",
    )  # fmt: skip
    assert final_report(recorder, job).mismatches == [
        "read 10, but encoded 8 and rejected 1",
        "a: indexed 6 and refused 1 of 8",
        "a: the engine counts 5, sent 6",
    ]
    assert final_report(recorder, job).rejected_reasons == {"empty text": 1, "too deep": 1}
    recorder.count("documents", 1, stage="rejected", reason="empty text")
    recorder.count("documents", 1, stage="indexed", sink="a")
    recorder.fact("count", 7, sink="a")
    assert final_report(recorder, job).mismatches == []


def test_durations() -> None:
    assert [duration(s) for s in (4.2, 59, 187, 7500, 273_600)] == [
        "4.2 s", "59 s", "3 min 7 s", "2 h 5 min", "3 d 4 h",
    ]  # fmt: skip


def test_a_job_that_is_done(tmp_path: Path) -> None:
    report, prom, folder = tmp_path / "out.json", tmp_path / "job.prom", tmp_path / "shards"
    code, out, err = run(
        folder, "--progress", "json", "--json", report, "--metrics", prom, "--api-token", SECRET
    )
    assert code == 0, err
    lines = [json.loads(line) for line in err.splitlines()]
    assert [line["event"] for line in lines] == [
        "job_started", "stage_started", "stage_started", "stage_ended", "stage_ended", "message",
        "job_ended",
    ]  # fmt: skip
    keys = {"time", "event", "job", "stage", "done", "total", "rate", "eta_seconds", "seconds",
            "counters"}  # fmt: skip
    assert all(keys <= set(line) for line in lines)
    assert (lines[3]["stage"], lines[3]["done"], lines[3]["total"]) == ("load documents", 3, 3)
    assert lines[-1]["counters"]["documents{stage=read}"] == 4
    assert lines[-1]["counters"]["documents{reason=duplicate id,stage=rejected}"] == 1

    made = json.loads(report.read_text(encoding="utf-8"))
    assert made == json.loads((folder / "report.json").read_text(encoding="utf-8"))
    job = made["job"]
    assert made["answer"] == 42
    assert (job["status"], job["exit_code"], job["mismatches"]) == ("done", 0, [])
    assert job["documents"] == {"read": 4, "encoded": 3, "reused": 0, "rejected": 1}
    assert job["rejected_reasons"] == {"duplicate id": 1}
    assert (job["retries"], job["stages"][0]["name"]) == (2, "encode documents")
    assert job["sinks"] == [
        {"sink": "milvus-lite/nightly", "alias": "nightly", "generation": "nightly_2026_ab",
         "indexed": 3, "refused": 0, "count": 3, "retries": 2, "clipped_weights": 0}
    ]  # fmt: skip
    assert "nightly_2026_ab, 3 written, 3 in the engine" in out
    assert "rejected 1: duplicate id" in out

    record = JobRecord.model_validate_json((folder / JOB).read_bytes())
    assert (record.status, record.exit_code, record.seen) == ("done", 0, "done")
    everything = out + err + (folder / JOB).read_text(encoding="utf-8") + prom.read_text()
    assert SECRET not in everything

    found = samples(prom.read_text(encoding="utf-8"))
    own = {"command": "index", "alias": "nightly"}
    assert found["steelyard_documents_total", "stage=read"] == 4
    assert found["steelyard_documents_total", "sink=milvus-lite/nightly,stage=indexed"] == 3
    assert found["steelyard_rejected_documents_total", "reason=duplicate id"] == 1
    assert found["steelyard_retries_total", "sink=milvus-lite/nightly"] == 2
    assert found["steelyard_stage_done", "stage=load documents"] == 3
    assert found["steelyard_job_running", ""] == 0
    assert found["steelyard_job_exit_code", ""] == 0
    assert found["steelyard_job_last_success_timestamp_seconds", ""] == pytest.approx(
        time.time(), abs=3600
    )
    for family in text_string_to_metric_families(prom.read_text(encoding="utf-8")):
        for sample in family.samples:
            assert own.items() <= sample.labels.items()


def samples(text: str) -> dict[tuple[str, str], float]:
    """Values by name and the labels that not every series has."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            own = {k: v for k, v in sample.labels.items() if k not in ("command", "alias") and v}
            found[sample.name, ",".join(f"{k}={v}" for k, v in sorted(own.items()))] = sample.value
    return found


@pytest.mark.parametrize(
    ("end", "expected", "says"),
    [("busy", 75, "the server is busy"), ("bad", 2, "a bad line"), ("bug", 70, "unexpected")],
)
def test_a_job_that_fails(tmp_path: Path, end: str, expected: int, says: str) -> None:
    report, prom = tmp_path / "out.json", tmp_path / "job.prom"
    run(tmp_path / "s", "--metrics", prom)
    success = samples(prom.read_text())["steelyard_job_last_success_timestamp_seconds", ""]
    code, out, err = run(tmp_path / "s", "--end", end, "--json", report, "--metrics", prom)
    assert code == expected
    assert says in err
    assert "written" not in out
    job = json.loads(report.read_text(encoding="utf-8"))["job"]
    assert (job["status"], job["exit_code"]) == ("failed", expected)
    assert SECRET not in report.read_text() + (tmp_path / "s" / JOB).read_text()
    found = samples(prom.read_text(encoding="utf-8"))
    assert found["steelyard_job_exit_code", ""] == expected
    assert found["steelyard_job_last_success_timestamp_seconds", ""] == success
    status = folder_status(tmp_path / "s")
    assert status.jobs[0][1] == "failed"
    assert status.continue_with is not None
    assert "--end" in status.continue_with


def test_rejected_documents_can_be_an_error(tmp_path: Path) -> None:
    code, out, err = run(tmp_path / "s", "--fail-on-rejected")
    assert code == 6
    assert "done, but 1 documents were rejected" in err
    assert "3 written" in out
    record = JobRecord.model_validate_json((tmp_path / "s" / JOB).read_bytes())
    assert (record.status, record.exit_code) == ("done", 6)


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT")]
)
def test_a_job_that_is_told_to_stop(tmp_path: Path, number: int, name: str) -> None:
    folder = tmp_path / "s"
    process = start(folder, "--end", "wait", "--json", tmp_path / "out.json")
    wait_for((folder / "waiting").exists, "the job")
    (_, record), *more = job_files(folder)
    assert not more
    assert record.seen == "running"
    assert folder_status(folder).continue_with is None
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"stopped by {name}" in err
    assert "Traceback" not in err
    assert json.loads((tmp_path / "out.json").read_text())["job"]["status"] == "interrupted"
    assert folder_status(folder).jobs[0][1] == "interrupted"


def test_a_killed_job_is_dead_and_what_continues_it_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "shards of today"
    process = start(folder, "--end", "wait")
    wait_for((folder / "waiting").exists, "the job")
    (path, record), *_ = job_files(folder)
    process.kill()
    process.communicate(timeout=60)
    shown = subprocess.run(
        [str(BIN), "status", str(folder)], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    assert "dead: index" in " ".join(shown.stdout.split())
    as_json = subprocess.run(
        [str(BIN), "status", str(folder), "--json"], capture_output=True, text=True, check=True
    )
    (told,) = json.loads(as_json.stdout)["folders"]
    assert told["jobs"][0]["seen"] == "dead"
    assert f"'{folder}' --end wait" in told["continue_with"]
    assert str(ROOT) in told["continue_with"]

    # The same process id, but another process: it has come again.
    other = record.model_copy(update={"pid": os.getpid(), "process_start": "1"})
    assert other.seen == "dead"
    # Another machine is judged by its last word.
    elsewhere = record.model_copy(update={"place": "another"})
    assert elsewhere.seen == "running"
    old = elsewhere.model_copy(update={"heartbeat": "2026-01-01T00:00:00+00:00"})
    assert old.seen == "silent"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="damaged"):
        folder_status(folder)


def test_a_process_is_found_again() -> None:
    me = this_process()
    assert is_alive(me) is True
    child = subprocess.Popen([sys.executable, "-c", ""])
    assert child.stdout is None
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    zombie = type(me)(me.host, me.place, child.pid, None)
    assert is_alive(zombie) is False
    child.wait()
    assert is_alive(zombie) is False


def test_two_jobs_on_the_same_shards(tmp_path: Path) -> None:
    process = start(tmp_path, "--end", "wait")
    wait_for((tmp_path / "waiting").exists, "the job")
    code, _, err = run(tmp_path)
    assert code == 0, err
    process.kill()
    process.communicate(timeout=60)
    seen = {path.name == JOB: record.seen for path, record in job_files(tmp_path)}
    assert seen == {True: "dead", False: "done"}
    assert len(list(tmp_path.glob("report-*.json"))) == 1


def test_a_heartbeat_and_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    me = this_process()
    record = JobRecord(
        id="one", command="index", arguments=[], directory="/", host=me.host, place=me.place,
        pid=me.pid, process_start=me.start, started="2026-01-01T00:00:00+00:00",
        heartbeat="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    recorder = Recorder()
    file = JobFile(recorder, record, seconds=0)
    recorder.watch(file)
    folder = tmp_path / "shards"
    folder.mkdir()
    recorder.fact("shards", str(folder))
    before = JobRecord.model_validate_json((folder / JOB).read_bytes()).heartbeat

    def beaten() -> bool:
        recorder.tell(Event("progress"))
        return read(folder) > before

    wait_for(beaten, "a heartbeat")
    (folder / JOB).unlink()
    folder.rmdir()
    recorder.tell(Event("progress"))  # no error
    folder.mkdir()
    recorder.tell(Event("progress"))
    assert read(folder) > before


def read(folder: Path) -> str:
    return JobRecord.model_validate_json((folder / JOB).read_bytes()).heartbeat


def test_logs_as_json(tmp_path: Path) -> None:
    env = {"STEELYARD_MILVUS_TOKEN": "another-secret"}
    code, _, err = run(tmp_path, "--log-format", "json", "--log-level", "debug", env=env)
    assert code == 0, err
    records = [json.loads(line) for line in err.splitlines()]
    assert all(
        {"time", "level", "logger", "event", "message", "job", "alias", "generation", "stage"}
        <= set(record)
        for record in records
    )
    by_event = {record["event"]: record for record in records}
    assert by_event["retry"]["level"] == "warning"
    assert by_event["retry"]["stage"] == "load documents"
    assert by_event["retry"]["alias"] == "nightly"
    assert by_event["job_ended"]["counters"]["documents{stage=read}"] == 4
    assert by_event["job_ended"]["generation"] == "nightly_2026_ab"
    ours = [record for record in records if record["logger"] == "steelyard.search"]
    assert [record["message"] for record in ours] == ["ours, with token=***"]
    assert ours[0]["job"] == by_event["job_ended"]["job"]
    assert "foreign" not in err
    assert SECRET not in err


def test_logs_as_text_of_a_level(tmp_path: Path) -> None:
    code, _, err = run(tmp_path, "--log-format", "text", "--log-level", "warning", "--end", "busy")
    assert code == 75
    log = [line for line in err.splitlines() if " steelyard." in line]
    assert [line.split()[1] for line in log] == ["WARNING", "WARNING", "WARNING", "ERROR"]
    assert "alias=nightly" in log[0]
    assert "the server is busy" in log[-1]
    code, _, err = run(tmp_path)
    assert code == 0
    assert "ours, with" not in err  # not asked for


@pytest.mark.parametrize(
    "arguments",
    [
        ("--progress", "loud"),
        ("--log-format", "xml"),
        ("--log-format", "text", "--log-level", "loud"),
        ("--metrics", "job.txt"),
        ("--metrics", "/proc/job.prom"),
        ("--push-gateway", "ftp://host"),
        ("--push-gateway", f"http://user:{SECRET}@host"),
    ],
)
def test_options_that_cannot_be_used(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, _, err = run(tmp_path / "s", *arguments)
    assert code == 2, err
    assert SECRET not in err
    assert not (tmp_path / "s").exists()


def test_metrics_that_can_no_longer_be_written_do_not_stop_the_job(tmp_path: Path) -> None:
    recorder = Recorder()
    folder = tmp_path / "metrics"
    metrics = MetricsFile(folder / "a.prom", recorder, "index", seconds=0)
    recorder.watch(metrics)
    (folder / "a.prom").unlink()
    folder.rmdir()
    recorder.tell(Event("progress"))
    assert "cannot write" in metrics.trouble
    folder.mkdir()
    recorder.tell(Event("progress"))
    assert metrics.trouble == ""
    assert samples((folder / "a.prom").read_text())["steelyard_job_running", ""] == 1


@contextmanager
def gateway() -> Iterator[tuple[str, list[tuple[str, str, str, str]]]]:
    """A server that takes pushes: method, path, login and body of each."""
    taken: list[tuple[str, str, str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            taken.append((self.command, self.path, self.headers.get("Authorization", ""), body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", taken
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_metrics_are_pushed(tmp_path: Path) -> None:
    with gateway() as (url, taken):
        recorder = Recorder()
        push = MetricsPush(url, recorder, "index", {USER: "me", PASSWORD: SECRET}, seconds=0.05)
        work(recorder, tmp_path, lambda: None)
        push.start()
        wait_for(lambda: taken, "a push")
        push.end(0)
        assert push.trouble == ""
    method, path, login, body = taken[-1]
    assert (method, path) == ("POST", "/metrics/job/steelyard/alias/nightly/command/index")
    assert login.startswith("Basic ")
    assert samples(body)["steelyard_job_exit_code", ""] == 0
    assert samples(taken[0][3])["steelyard_job_running", ""] == 1
    assert "steelyard_job_last_success" not in taken[0][3]
    push = MetricsPush(url, Recorder(), "index", {})
    push.start()
    push.end(1)  # nobody listens any more
    assert "cannot push metrics" in push.trouble
