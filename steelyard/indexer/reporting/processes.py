"""Which process is which: a process id alone comes again."""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process, as another process can find it again.

    Attributes:
        host: name of the machine or container.
        place: what ``pid`` belongs to: on Linux this start of the machine and the process
            namespace, elsewhere the host.
        pid: its id there.
        start: when it began, as the system tells it; None when it does not.
    """

    host: str
    place: str
    pid: int
    start: str | None


def this_process() -> ProcessIdentity:
    """The one that asks."""
    pid = os.getpid()
    return ProcessIdentity(socket.gethostname(), _place(), pid, _start(pid))


def is_alive(process: ProcessIdentity) -> bool | None:
    """Whether it runs; None when that cannot be seen from here."""
    if process.place != _place():
        return None
    start = _start(process.pid)
    return start is not None and (process.start is None or start == process.start)


def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def _start(pid: int) -> str | None:
    """Start of a process that runs; None for one that has ended or is no more than a zombie."""
    if Path("/proc/self/stat").exists():
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        # The name, in brackets, may hold anything.
        fields = text.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    try:
        told = subprocess.run(  # noqa: S603
            ["ps", "-o", "lstart=", "-p", str(pid)],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return told.stdout.strip() or None
