"""One job a folder: a lock that goes with the process, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from steelyard.errors import InputError


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Make a folder and hold its lock.

    Raises:
        InputError: another job holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"another job is writing to {folder}", "wait for it") from error
        yield
    finally:
        os.close(descriptor)
