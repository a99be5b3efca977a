"""One job a folder: locks that go with the process, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from steelyard.errors import BusyError


@contextmanager
def locked_file(path: Path, *, wait: bool) -> Iterator[int]:
    """Hold a lock file; the lock goes with the process, however it ends.

    Yields:
        Its descriptor: a child that is given it holds the lock too.

    Raises:
        BlockingIOError: another holds it, and ``wait`` is False.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Make a folder and hold its lock.

    Raises:
        BusyError: another job holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(locked_file(folder / ".lock", wait=False))
        except BlockingIOError as error:
            raise BusyError(f"another job is writing to {folder}", "wait for it") from error
        yield
