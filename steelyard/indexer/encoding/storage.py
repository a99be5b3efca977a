"""A disk that is full or cannot be written, in words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from steelyard.errors import StorageError


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Inside, an error of the file system is one that says what to do.

    Raises:
        StorageError: with the path and the reason.
    """
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StorageError(
            f"cannot write {path}: {reason}",
            "make room or mend the folder; the same command then goes on from here",
        ) from error


def sync_folder(folder: Path) -> None:
    """What was renamed in a folder stays renamed, also after a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
