"""Programs that we start: tied to our life, and stopped for certain."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal as signals
import socket
import subprocess

from steelyard.errors import InputError

STOP_SECONDS = 30.0


def dies_with_us(command: list[str], *, signal: str = "TERM") -> list[str]:
    """The command, told by the kernel (Linux) when the thread that starts it is gone.

    So nothing stays behind even if we are killed.
    """
    setpriv = shutil.which("setpriv")
    return [*([setpriv, "--pdeathsig", signal] if setpriv else []), *command]


def stop(process: subprocess.Popen[bytes], *, seconds: float = STOP_SECONDS) -> None:
    """Ask it to end, then kill it, with whatever it started in its session.

    Interrupted while it waits, it kills at once.
    """
    try:
        _tell(process, signals.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    finally:
        _tell(process, signals.SIGKILL)
        process.wait()


def has_ended(pid: int) -> bool:
    """Whether a child of ours has ended; its exit code stays for whoever waits for it."""
    try:
        look = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, pid, look) is not None
    except ChildProcessError:  # somebody has waited for it
        return True


def check_port(port: int) -> None:
    """An error if something on this machine listens there; 0 is any free port.

    Raises:
        InputError: it is taken.
    """
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as probe:
            # Connecting, not binding: "localhost" may lead a client to either of the two.
            probe.settimeout(2)
            if not port or probe.connect_ex((host, port)) != 0:
                continue
            # TCP may connect a socket with itself, where nobody listens.
            if probe.getsockname() != probe.getpeername():
                raise InputError(
                    f"port {port} is taken: something listens at {host}",
                    "stop it, or choose another with --port",
                )


def _tell(process: subprocess.Popen[bytes], signal: signals.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal)
