"""Files of engines and records on this machine: errors in words, renames that last."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from steelyard.errors import EngineError


@contextmanager
def file_errors(action: str) -> Iterator[None]:
    """Turn what the file system says into an EngineError."""
    try:
        yield
    except OSError as error:
        raise EngineError(
            f"could not {action}: {error.strerror or error}",
            "check the path, its rights and the free disk",
        ) from error


def fsync_folder(path: Path) -> None:
    """Make new, renamed and removed files of a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
