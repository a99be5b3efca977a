"""Folders of local servers: where they are kept, where they work, and where their data stays.

Some servers refuse to be root, so root starts them as ``nobody``. Their folders must then be
where nobody can go, which root's own home folder is not.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from steelyard.config import cache_dir
from steelyard.encoders.folder_lock import locked_file
from steelyard.errors import InputError
from steelyard.local_servers.errors import ServerError

MARKER = "steelyard-server.json"
"""In a data folder: whose data it is."""

_GB = 1 << 30


def server_user() -> pwd.struct_passwd | None:
    """Whom a server runs as; None is us."""
    return pwd.getpwnam("nobody") if os.getuid() == 0 else None


def can_enter(folder: Path) -> bool:
    """Whether any user may go into ``folder``, or what there is of it so far."""
    paths = [path for path in (folder, *folder.parents) if path.exists()]
    return all(path.stat().st_mode & stat.S_IXOTH for path in paths)


def servers_folder() -> Path:
    """Where the programs of servers are kept: a folder of our own that they can enter.

    ``cache_dir()/servers``; for root, where nobody cannot go there, a folder in ``/var/tmp``.

    Raises:
        ServerError: another user could write to it.
    """
    user = os.getuid()
    fallback = Path(f"/var/tmp/steelyard-servers-{user}")  # noqa: S108
    for place in ((cache_dir() / "servers").resolve(), fallback):
        if user == 0 and not can_enter(place):
            continue
        place.mkdir(parents=True, exist_ok=True)
        found = place.lstat()
        others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != user or others_write:
            raise ServerError(
                f"{place} is not a folder that only this user can write to", "remove it"
            )
        place.chmod(0o755)  # whatever the umask made of it
        if user != 0 or can_enter(place):
            return place
    raise ServerError(f"nobody cannot enter {fallback}", "start it as another user than root")


@contextmanager
def work_folder(server: str) -> Iterator[tuple[Path, int]]:
    """A new folder that the server's user can enter, whatever $TMPDIR is; gone afterwards.

    It is locked, and the server inherits the lock: what a killed run left behind is removed by the
    next, but never under a server that still runs.

    Yields:
        The folder, and the descriptor of its lock.
    """
    place = Path(tempfile.gettempdir())
    if os.getuid() == 0 and not can_enter(place):
        place = Path("/var/tmp")  # noqa: S108
    prefix = f"steelyard-{server}-"
    _sweep(place, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    try:
        # Under its name only once it is held: a lock that is free has lost its owner.
        with locked_file(folder / ".lock.new", wait=True) as lock:
            (folder / ".lock.new").rename(folder / ".lock")
            try:
                yield folder, lock
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def data_folder(folder: Path, server: str, *, as_nobody: bool) -> Iterator[tuple[Path, int]]:
    """A folder that keeps a server's data between runs, held by one server at a time.

    Args:
        folder: new, empty, or of an earlier run.
        server: whose data.
        as_nobody: root starts this server as nobody.

    Yields:
        The folder, and the descriptor of its lock.

    Raises:
        InputError: it holds something else, another server has it, or the server cannot go there.
    """
    folder = folder.expanduser().resolve()
    if as_nobody and os.getuid() == 0 and not can_enter(folder):
        raise InputError(
            f"root starts {server} as nobody, who cannot enter {folder}",
            "choose a folder under /var/tmp or /srv, or start it as another user than root",
        )
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is no folder", "choose a new or an empty one")
    marker = folder / MARKER
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if there - {".lock"} and MARKER not in there:
        raise InputError(
            f"{folder} holds other files than a server's data", "choose a new or an empty folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked_file(folder / ".lock", wait=False) as lock:
            _mark(marker, server)
            yield folder, lock
    except BlockingIOError as error:
        raise InputError(f"another server uses {folder}", "stop it, or choose another") from error


def check_free_disk(place: Path, needed_gb: float, purpose: str) -> None:
    """An error unless a folder's disk has room.

    Raises:
        ServerError: with both numbers.
    """
    free = shutil.disk_usage(place).free / _GB
    if free < needed_gb:
        raise ServerError(
            f"{purpose} takes {needed_gb:.1f} GB, and {place} has {free:.1f} GB free",
            "make room, or name another place in $STEELYARD_CACHE",
        )


def _mark(marker: Path, server: str) -> None:
    if not marker.exists():
        marker.write_text(json.dumps({"server": server}) + "\n", encoding="utf-8")
        return
    try:
        known = json.loads(marker.read_text(encoding="utf-8"))["server"]
    except (ValueError, LookupError, TypeError):
        known = "an unknown server"
    if known != server:
        raise InputError(
            f"{marker.parent} holds data of {known}, not of {server}", "choose another folder"
        )


def _sweep(place: Path, prefix: str) -> None:
    """Remove what runs that were killed left behind."""
    user = server_user()
    owners = {os.getuid(), *([user.pw_uid] if user else [])}
    for folder in place.glob(f"{prefix}*"):
        lock = folder / ".lock"
        with suppress(OSError):  # also BlockingIOError: its server runs
            if folder.lstat().st_uid in owners and lock.is_file() and not folder.is_symlink():
                with locked_file(lock, wait=False):
                    shutil.rmtree(folder, ignore_errors=True)
