"""A real Milvus on this machine: the standalone binary that the PyPI package ``milvus`` carries.

The package's own launcher has fixed ports and changes the working directory, so only its data are
used: the binaries are unpacked once into ``cache_dir()/servers`` (240 MB), and a start gets a
configuration of its own, with every port a free one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import lzma
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from steelyard.config import cache_dir
from steelyard.encoders.folder_lock import locked_file
from steelyard.local_servers.errors import MissingProgramError, ServerError
from steelyard.local_servers.folders import check_free_disk, work_folder
from steelyard.local_servers.processes import dies_with_us, stop

VERSION = "2.3.5"
_GB = 0.3
"""What the unpacked binaries take."""

INSTALL = f"pip install milvus=={VERSION}"
ROOT_PASSWORD = "Milvus"  # noqa: S105
"""Of ``root``, until it is changed; asked for with ``authorization`` only."""

START_SECONDS = 240.0
STOP_SECONDS = 3.0
"""Given to a server to end by itself. With collections in memory it would wait for another node to
take them; killed, it finds everything in its logs at the next start."""

_LEASE_SECONDS = 12
_SETTING = re.compile(r"\{\{\s*(?P<name>\w+)(\((?P<type>\w+)\))?\s*(:\s*(?P<default>.*?))?\s*\}\}")
_PORTS = (
    "etcd_port",
    "root_coord_port",
    "proxy_port",
    "proxy_internal_port",
    "query_coord_port",
    "query_node_port",
    "index_coord_port",
    "index_node_port",
    "data_coord_port",
    "data_node_port",
)
_ETCD = """\
name: default
listen-client-urls: http://127.0.0.1:{client}
advertise-client-urls: http://127.0.0.1:{client}
listen-peer-urls: http://127.0.0.1:{peer}
initial-advertise-peer-urls: http://127.0.0.1:{peer}
initial-cluster: default=http://127.0.0.1:{peer}
"""


@contextmanager
def running_milvus(
    folder: Path | None = None,
    *,
    port: int = 0,
    authorization: bool = False,
    certificate: Path | None = None,
    key: Path | None = None,
) -> Iterator[str]:
    """A server of its own, stopped when the block ends: its address, ``127.0.0.1:port``.

    Args:
        folder: its data, kept for the next start; None is a temporary one, removed.
        port: of its gRPC interface; 0 is any free one.
        authorization: logins are asked for; the first is ``root`` with ``ROOT_PASSWORD``.
        certificate, key: PEM files; with them it speaks TLS only.

    Raises:
        ServerError: the package is missing, or it does not start; the end of its log is quoted.
    """
    with milvus_process(
        folder, port=port, authorization=authorization, certificate=certificate, key=key
    ) as server:
        yield server.address


@contextmanager
def milvus_process(
    folder: Path | None = None,
    *,
    port: int = 0,
    authorization: bool = False,
    certificate: Path | None = None,
    key: Path | None = None,
    locks: Sequence[int] = (),
) -> Iterator[MilvusProcess]:
    """``running_milvus``, with its process and its log.

    Args:
        folder, port, authorization, certificate, key: see there.
        locks: descriptors that the server inherits: what they lock stays so while it runs.

    Raises:
        ServerError: the package is missing, or it does not start; the end of its log is quoted.
    """
    package = _package()
    binaries = _binaries(package)
    with ExitStack() as stack:
        if folder is None:
            folder, lock = stack.enter_context(work_folder("milvus"))
            locks = [*locks, lock]
        server = _start(
            folder.absolute(),
            package,
            binaries,
            port,
            {
                "authorization_enabled": str(authorization).lower(),
                "tls_mode": "0" if certificate is None else "1",
                "server_pem_path": str(certificate or ""),
                "server_key_path": str(key or ""),
            },
            locks,
        )
        stack.callback(server.stop)
        server.wait_until_ready()
        yield server


class MilvusProcess:
    """One server process.

    Attributes:
        address: ``127.0.0.1:port`` of its gRPC interface.
        pid: of the process.
        log: the file of what it prints.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], address: str, health: str, log: Path
    ) -> None:
        self._process, self._health = process, health
        self.address, self.log = address, log

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def wait(self) -> int:
        """Until the server ends by itself; its exit code."""
        return self._process.wait()

    def wait_until_ready(self) -> None:
        """Until it takes requests.

        Raises:
            ServerError: it does not within four minutes, or has ended.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(self._health, timeout=5) as answer,  # noqa: S310
            ):
                if b"OK" in answer.read():
                    return
            time.sleep(0.1)
        code = self._process.poll()
        state = "does not answer" if code is None else f"ended with {code}"
        said = self.log.read_text(encoding="utf-8", errors="replace")
        # A panic writes what each of its threads was doing, thousands of lines.
        panic = re.search(r"(?m)^(panic: |fatal error: |.*\[FATAL\])", said)
        end = said[: panic.start() + 2000] if panic else said
        raise ServerError(f"Milvus {state}; the end of its log:\n{end[-6000:]}")

    def stop(self) -> None:
        """Asked first, then killed."""
        stop(self._process, seconds=STOP_SECONDS)


def _package() -> Path:
    found = importlib.util.find_spec("milvus")
    data = Path(found.origin).parent / "data" if found and found.origin else None
    if data is None or not (data / "config.yaml.template").is_file():
        raise MissingProgramError("a local Milvus needs the Python package 'milvus'", INSTALL)
    return data


def _binaries(package: Path) -> Path:
    """The unpacked server, made now if it is not there yet."""
    place = cache_dir() / "servers"
    place.mkdir(parents=True, exist_ok=True)
    home = place / f"milvus-{VERSION}"
    with locked_file(place / f"milvus-{VERSION}.lock", wait=True):
        if not home.is_dir():
            check_free_disk(place, _GB, "unpack Milvus")
            unfinished = place / f"milvus-{VERSION}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
            unfinished.mkdir()
            for packed in sorted((package / "bin").glob("*.lzma")):
                target = unfinished / packed.stem
                with lzma.open(packed) as source, target.open("wb") as stream:
                    shutil.copyfileobj(source, stream, 1 << 20)
                target.chmod(0o755)
            unfinished.rename(home)
    return home


def _start(
    folder: Path,
    package: Path,
    binaries: Path,
    port: int,
    settings: dict[str, str],
    locks: Sequence[int],
) -> MilvusProcess:
    for name in ("configs", "data", "logs", "run"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    metrics, peer, *free = _free_ports(len(_PORTS) + 2)
    ports = dict(zip(_PORTS, free, strict=True))
    if port:
        ports["proxy_port"] = port
    etcd = folder / "configs" / "etcd.yaml"
    etcd.write_text(_ETCD.format(client=ports["etcd_port"], peer=peer), encoding="utf-8")
    values = {
        **{name: str(number) for name, number in ports.items()},
        "etcd_log_path": str(folder / "logs" / "etcd.log"),
        "system_log_path": str(folder / "logs"),
        "etcd_data_dir": str(folder / "data" / "etcd"),
        "local_storage_dir": str(folder / "data"),
        "rocksmq_data_dir": str(folder / "data" / "rocksmq"),
        **settings,
    }
    template = (package / "config.yaml.template").read_text(encoding="utf-8")
    text = _SETTING.sub(lambda found: values.get(found["name"], found["default"] or ""), template)
    # Its parts find each other by this machine's first address otherwise, which may change.
    text = re.sub(r"(?m)^(  ip:)\s*(#.*)?$", r"\1 127.0.0.1", text)
    # So long a start waits for a server before it on the same data, which was killed.
    text = re.sub(r"(?m)^(    ttl:) 30\b", rf"\1 {_LEASE_SECONDS}", text)
    text = re.sub(r"(?m)^etcd:$", f"etcd:\n  config:\n    path: {etcd}", text)
    (folder / "configs" / "milvus.yaml").write_text(text, encoding="utf-8")
    shutil.copy(package / "glog.conf", folder / "configs" / "glog.conf")
    log = folder / "logs" / "console.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(  # noqa: S603
            # Not asked to end: it would wait, as in STOP_SECONDS.
            dies_with_us([str(binaries / "milvus"), "run", "standalone"], signal="KILL"),
            cwd=folder,
            env={
                "PATH": os.defpath,
                "HOME": str(folder),
                "DEPLOY_MODE": "STANDALONE",
                "METRICS_PORT": str(metrics),
                "MILVUS_RUN_DIR": str(folder / "run"),
                "LD_LIBRARY_PATH": str(binaries),
            },
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=locks,
        )
    health = f"http://127.0.0.1:{metrics}/healthz"
    return MilvusProcess(process, f"127.0.0.1:{ports['proxy_port']}", health, log)


def _free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on just now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for made in sockets:
            made.bind(("127.0.0.1", 0))
        return [int(made.getsockname()[1]) for made in sockets]
