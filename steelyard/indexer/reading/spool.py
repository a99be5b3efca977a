"""Standard input, kept in a file: it has to be read twice, and again when a job continues."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

from steelyard.config import cache_dir
from steelyard.errors import InputError, first_line
from steelyard.indexer.reading.formats import FORMATS

_BLOCK = 1 << 20
_MAGIC = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst"}


def spool_input(format: str | None, stream: BinaryIO | None = None) -> Path:
    """Copy standard input to ``stdin/<sha256>.<format>`` in the cache.

    The same bytes find the same file, with the time at which they came first.

    Args:
        format: of what comes; None is ``jsonl``.
        stream: to read instead.

    Raises:
        InputError: nothing comes, or it cannot be kept.
    """
    source = sys.stdin.buffer if stream is None else stream
    if source.isatty():
        raise InputError("standard input is a terminal", "pipe documents into the command")
    folder = cache_dir() / "stdin"
    digest, size, head = hashlib.sha256(), 0, b""
    temporary = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", delete=False) as kept:
            temporary = Path(kept.name)
            while block := source.read(_BLOCK):
                head = head or block[:4]
                digest.update(block)
                size += len(block)
                kept.write(block)
        if not size:
            raise InputError("standard input is empty", "pipe documents into the command")
        packed = next((end for magic, end in _MAGIC.items() if head.startswith(magic)), "")
        path = folder / f"{digest.hexdigest()}.{format or FORMATS[0]}{packed}"
        if not path.exists():
            temporary.replace(path)
        return path
    except OSError as error:
        raise InputError(
            f"standard input cannot be kept in {folder}: {first_line(error)}",
            "make room, or set STEELYARD_CACHE to a folder that can be written",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
