"""Starts a real OpenSearch node on this machine, and stops it for certain.

It runs as ``nobody`` where we are root, which OpenSearch refuses to be.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steelyard.local_servers.ask import RefusedError, ask
from steelyard.local_servers.errors import ServerError
from steelyard.local_servers.folders import data_folder, server_user, work_folder
from steelyard.local_servers.java import find_java
from steelyard.local_servers.opensearch_home import opensearch_home
from steelyard.local_servers.opensearch_parts import NATIVES, VERSION
from steelyard.local_servers.processes import check_port, dies_with_us, stop
from steelyard.progress import Progress, SilentProgress

HEAP = "1g"
START_SECONDS = 240.0
_LOG_LINES = 40

_SETTINGS = {
    "cluster.name": "steelyard-local",
    "discovery.type": "single-node",
    "network.host": "127.0.0.1",
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


@dataclass(frozen=True, slots=True)
class Node:
    """A node that runs.

    Attributes:
        url: base URL of its HTTP interface.
        process: its Java.
        log: everything it said.
    """

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raises ``ServerError`` if it has ended by itself."""
        if self.process.poll() is not None:
            raise _failed(self.process, self.log)


@contextmanager
def running_node(
    *, ml: bool = True, settings: Mapping[str, Any] | None = None, quick: bool = False
) -> Iterator[str]:
    """The base URL of a node of its own, as by ``local_node``, with an empty data folder."""
    with local_node(ml=ml, settings=settings, quick=quick) as node:
        yield node.url


@contextmanager
def local_node(
    *,
    ml: bool = True,
    settings: Mapping[str, Any] | None = None,
    port: int = 0,
    data: Path | None = None,
    quick: bool = False,
    progress: Progress | None = None,
) -> Iterator[Node]:
    """A node of its own; it and its temporary folder are gone afterwards.

    Args:
        ml: with ML Commons.
        settings: more lines for opensearch.yml.
        port: of its HTTP interface, on this machine only; 0 is any free one.
        data: folder that keeps its data between runs; None is a temporary one.
        quick: up with half the work, as nothing is compiled to the full; not for measuring.
        progress: is told when the program has to be laid out first.

    Raises:
        ServerError: it cannot be laid out, or it did not start; the end of its log is quoted.
        InputError: the port or the data folder cannot be used.
    """
    progress = progress or SilentProgress()
    check_port(port)
    java = find_java()
    home = opensearch_home(ml=ml, progress=progress)
    with contextlib.ExitStack() as held:
        work, lock = held.enter_context(work_folder("opensearch"))
        locks = [lock]
        place = work
        if data:
            place, lock = held.enter_context(data_folder(data, "opensearch", as_nobody=True))
            locks.append(lock)
        values = {
            **_SETTINGS,
            **(_ML_SETTINGS if ml else {}),
            **(settings or {}),
            "http.port": port,
            "path.data": str(place / "data"),
            "path.logs": str(work / "logs"),
        }
        _prepare(work, place / "data", home, values, ml=ml)
        log = work / "console.log"
        user = server_user()
        with log.open("wb") as stream:
            process = subprocess.Popen(  # noqa: S603  (a list, never a shell)
                dies_with_us(_command(java, home, work, quick=quick)),
                cwd=work,
                env=_environment(home, work, ml=ml),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=locks,
                user=user.pw_uid if user else None,
                group=user.pw_gid if user else None,
                extra_groups=[] if user else None,
            )
        try:
            with progress.stage(f"start OpenSearch {VERSION}"):
                url = _started(process, log)
            yield Node(url, process, log)
        finally:
            stop(process)


def _prepare(work: Path, data: Path, home: Path, settings: Mapping[str, Any], *, ml: bool) -> None:
    """Folders and settings, all of them the server's user's own."""
    for name in ("config", "logs", "tmp"):
        (work / name).mkdir()
    data.mkdir(exist_ok=True)
    lines = [f"{key}: {json.dumps(value)}\n" for key, value in settings.items()]
    (work / "config" / "opensearch.yml").write_text("".join(lines), encoding="utf-8")
    (work / "config" / "log4j2.properties").write_text(_LOGGING, encoding="utf-8")
    if ml:
        cache = data / "ml_cache" / "pytorch"
        cache.mkdir(parents=True, exist_ok=True)
        (cache / NATIVES).unlink(missing_ok=True)
        (cache / NATIVES).symlink_to(home / "natives" / NATIVES)
    user = server_user()
    if user:
        for path in (work, *work.rglob("*"), data, *data.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)


def _command(java: Path, home: Path, work: Path, *, quick: bool) -> list[str]:
    agent = next((home / "agent").glob("opensearch-agent-[0-9]*.jar"))
    return [
        str(java),
        f"-Xms{HEAP}",
        f"-Xmx{HEAP}",
        "-XX:+UseSerialGC",
        *(["-XX:TieredStopAtLevel=1"] if quick else []),
        f"-Djava.io.tmpdir={work / 'tmp'}",
        f"-Dopensearch.path.home={home}",
        f"-Dopensearch.path.conf={work / 'config'}",
        "-Dopensearch.distribution.type=tar",
        "-Dopensearch.bundled_jdk=false",
        "--enable-native-access=ALL-UNNAMED",
        f"-javaagent:{agent}",
        "-cp",
        f"{home / 'lib'}/*",
        "org.opensearch.bootstrap.OpenSearch",
    ]


def _environment(home: Path, work: Path, *, ml: bool) -> dict[str, str]:
    """Nothing of ours: a JAVA_TOOL_OPTIONS or LD_LIBRARY_PATH would change the server."""
    values = {"PATH": os.defpath, "HOME": str(work), "LANG": "C.UTF-8"}
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
    raise _failed(process, log)


def _failed(process: subprocess.Popen[bytes], log: Path) -> ServerError:
    code = process.poll()
    state = (
        f"does not answer after {START_SECONDS:.0f} s"
        if code is None
        else f"was killed by signal {-code}"
        if code < 0
        else f"ended with exit code {code}"
    )
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
    return ServerError(
        f"OpenSearch {state}; the end of its log:\n" + "\n".join(line[:300] for line in lines),
        f"it takes {HEAP} of heap and about as much again: see that so much memory is free"
        if code in (None, -9)
        else "",
    )
