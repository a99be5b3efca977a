"""Writing a folder whole: beside its place first, flushed to disk, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from steelyard.errors import InputError


def refuse_taken(path: Path, marker: str, what: str, overwrite: bool) -> None:
    """Raise an InputError if a folder cannot be written here; called before hours of work.

    Args:
        path: where it would go: a free place, or with ``overwrite`` over an older one.
        marker: file that every such folder has.
        what: its name in messages: "a query pack".
        overwrite: whether an older one may be replaced.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / marker).is_file():
        raise InputError(f"{path} exists and is not {what}", "choose another place")
    if not overwrite:
        raise InputError(f"{path} already holds {what}", "add --overwrite to replace it")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to write into; it takes the place of ``path`` if the block ends well.

    A reader sees a whole folder, old or new, or for a moment none. Everyone may read the new one
    (0755, its files 0644). Whether what is at ``path`` may go is for the caller to say before.

    Args:
        path: where the folder goes; parents that are missing are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        for entry in (*sorted(temporary.rglob("*")), temporary):
            if not entry.is_symlink():
                entry.chmod(0o755 if entry.is_dir() else 0o644)
                _fsync(entry)
        _swap(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap(temporary: Path, path: Path) -> None:
    """Put ``temporary`` in the place of ``path``; what was there comes back if that fails."""
    if not path.exists():
        temporary.rename(path)
        _fsync(path.parent)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
    old = aside / path.name
    try:
        path.rename(old)
        temporary.rename(path)
        _fsync(path.parent)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    finally:
        if path.exists():
            shutil.rmtree(aside)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
