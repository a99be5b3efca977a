"""Starts a real OpenSearch node on this machine, asks it things, and stops it for certain.

It runs as ``nobody`` where we are root, which OpenSearch refuses to be.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.servers.opensearch_home import NATIVES, ServerError, can_enter, opensearch_home

JDK = 21
HEAP = "1g"
START_SECONDS = 240.0
STOP_SECONDS = 30.0

_SETTINGS = {
    "cluster.name": "steelyard-tests",
    "discovery.type": "single-node",
    "network.host": "127.0.0.1",
    "http.port": 0,  # any free port: the log says which
    "transport.port": 0,
    "cluster.routing.allocation.disk.threshold_enabled": False,
}
_ML_SETTINGS = {
    "plugins.ml_commons.only_run_on_ml_node": False,
    "plugins.ml_commons.model_access_control_enabled": False,
    "plugins.ml_commons.allow_registering_model_via_local_file": True,
    # The machine is shared: what others use must not stop a model of a few MB.
    "plugins.ml_commons.native_memory_threshold": 100,
    "plugins.ml_commons.jvm_heap_memory_threshold": 100,
}
_LOGGING = """\
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%c{1.}] %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""
_LISTENS = re.compile(r"HttpServerTransport\] publish_address \{127\.0\.0\.1:(\d+)\}")


class RefusedError(Exception):
    """The server answered with an error.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: int, answer: str) -> None:
        super().__init__(f"{status}: {answer[:2000]}")
        self.status = status


def ask(url: str, method: str, path: str, body: Any = None, *, seconds: float = 120.0) -> Any:
    """One request; JSON there and back.

    Args:
        url: base URL of the server.
        method: of HTTP.
        path: with its query string.
        body: a JSON value; bytes and strings are sent as they are.
        seconds: to wait at most.

    Raises:
        RefusedError: any status but 2xx.
    """
    data = body if body is None or isinstance(body, (bytes, str)) else json.dumps(body)
    if isinstance(data, str):
        data = data.encode("utf-8")
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=seconds)
    try:
        connection.request(method, path, data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read().decode("utf-8")
    finally:
        connection.close()
    if not 200 <= response.status < 300:
        raise RefusedError(response.status, answer)
    return json.loads(answer) if answer else None


@contextmanager
def running_node(*, ml: bool = True, settings: Mapping[str, Any] | None = None) -> Iterator[str]:
    """A node of its own with an empty data folder; it and the folder are gone afterwards.

    Args:
        ml: with ML Commons.
        settings: more lines for opensearch.yml.

    Yields:
        The base URL.

    Raises:
        ServerError: it cannot be laid out, or it did not start; the end of its log is quoted.
    """
    java = find_java()
    if java is None:
        raise ServerError(f"there is no JDK {JDK} or newer")
    home = opensearch_home(ml=ml)
    # OpenSearch refuses to be root.
    nobody = pwd.getpwnam("nobody") if os.getuid() == 0 else None
    folder = _work_folder()
    try:
        values = {**_SETTINGS, **(_ML_SETTINGS if ml else {}), **(settings or {})}
        _prepare(folder, home, values, ml=ml)
        if nobody:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
        log = folder / "console.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                _command(java, home, folder),
                cwd=folder,
                env=_environment(home, folder, ml=ml),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=nobody.pw_uid if nobody else None,
                group=nobody.pw_gid if nobody else None,
                extra_groups=[] if nobody else None,
            )
        try:
            yield _started(process, log)
        finally:
            _stop(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def find_java() -> str | None:
    """A java of ``JDK`` or newer: of $JAVA_HOME, on the path, or where Debian puts them."""
    candidates = [shutil.which("java")]
    if os.environ.get("JAVA_HOME"):
        candidates.insert(0, shutil.which("java", path=f"{os.environ['JAVA_HOME']}/bin"))
    candidates += map(str, sorted(Path("/usr/lib/jvm").glob("*/bin/java")))
    for java in candidates:
        if java is None:
            continue
        told = subprocess.run([java, "-version"], check=False, capture_output=True, text=True)
        version = re.search(r'version "(\d+)', told.stderr)
        if version and int(version[1]) >= JDK:
            return java
    return None


def _work_folder() -> Path:
    """A new folder that the server's user can enter, whatever $TMPDIR is."""
    place = Path(tempfile.gettempdir())
    if os.getuid() == 0 and not can_enter(place):
        place = Path("/var/tmp")  # noqa: S108
    return Path(tempfile.mkdtemp(prefix="steelyard-opensearch-", dir=place))


def _prepare(folder: Path, home: Path, settings: Mapping[str, Any], *, ml: bool) -> None:
    for name in ("config", "data", "logs", "tmp"):
        (folder / name).mkdir()
    values = {
        **settings,
        "path.data": str(folder / "data"),
        "path.logs": str(folder / "logs"),
    }
    lines = [f"{key}: {json.dumps(value)}\n" for key, value in values.items()]
    (folder / "config" / "opensearch.yml").write_text("".join(lines), encoding="utf-8")
    (folder / "config" / "log4j2.properties").write_text(_LOGGING, encoding="utf-8")
    if ml:
        cache = folder / "data" / "ml_cache" / "pytorch"
        cache.mkdir(parents=True)
        (cache / NATIVES).symlink_to(home / "natives" / NATIVES)


def _command(java: str, home: Path, folder: Path) -> list[str]:
    agent = next((home / "agent").glob("opensearch-agent-[0-9]*.jar"))
    # The node dies with the test run even if that is killed; TERM is what `_stop` says.
    setpriv = shutil.which("setpriv")
    return [
        *([setpriv, "--pdeathsig", "TERM"] if setpriv else []),
        java,
        f"-Xms{HEAP}",
        f"-Xmx{HEAP}",
        "-XX:+UseSerialGC",
        f"-Djava.io.tmpdir={folder / 'tmp'}",
        f"-Dopensearch.path.home={home}",
        f"-Dopensearch.path.conf={folder / 'config'}",
        "-Dopensearch.distribution.type=tar",
        "-Dopensearch.bundled_jdk=false",
        "--enable-native-access=ALL-UNNAMED",
        f"-javaagent:{agent}",
        "-cp",
        f"{home / 'lib'}/*",
        "org.opensearch.bootstrap.OpenSearch",
    ]


def _environment(home: Path, folder: Path, *, ml: bool) -> dict[str, str]:
    """Nothing of ours: a JAVA_TOOL_OPTIONS or LD_LIBRARY_PATH would change the server."""
    values = {"PATH": os.defpath, "HOME": str(folder), "LANG": "C.UTF-8"}
    if ml:
        values |= {
            "PYTORCH_LIBRARY_PATH": str(home / "natives" / NATIVES),
            "PYTORCH_VERSION": NATIVES.split("-")[0],
            "PYTORCH_FLAVOR": "cpu",
        }
    return values


def _started(process: subprocess.Popen[bytes], log: Path) -> str:
    """The base URL, as soon as the cluster takes indexes."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        listens = _LISTENS.search(log.read_text(encoding="utf-8", errors="replace"))
        if listens:
            url = f"http://127.0.0.1:{listens[1]}"
            with contextlib.suppress(OSError, RefusedError, http.client.HTTPException):
                path = "/_cluster/health?wait_for_status=yellow&timeout=5s"
                ask(url, "GET", path, seconds=10)
                return url
        time.sleep(0.2)
    state = "does not answer" if process.poll() is None else f"ended with {process.returncode}"
    said = log.read_text(encoding="utf-8", errors="replace")
    raise ServerError(f"OpenSearch {state}; the end of its log:\n{said[-6000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Asked first, then killed, with whatever it started."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
