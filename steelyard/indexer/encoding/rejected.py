"""``rejected.jsonl``: written as the corpus is read, so that memory does not grow with it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from steelyard.errors import InputError
from steelyard.indexer.encoding.append_only import rewrite
from steelyard.indexer.encoding.manifest import REJECTED, RejectedDocument
from steelyard.indexer.encoding.storage import storing


class RejectedFile:
    """The rejections of one pass over the corpus, from its beginning.

    Args:
        folder: of the shards.
        limit: how many are allowed; None is any number.

    Attributes:
        count: how many there were.
    """

    def __init__(self, folder: Path, limit: int | None) -> None:
        self._path, self._limit, self.count = folder / REJECTED, limit, 0
        with storing(self._path):
            self._path.write_bytes(b"")

    def add(self, rejected: Sequence[RejectedDocument]) -> None:
        """Note some, in order of line.

        Raises:
            InputError: there are more than are allowed.
        """
        lines = [r.model_dump_json(exclude_none=False) + "\n" for r in rejected]
        if lines:
            with storing(self._path), self._path.open("a", encoding="utf-8") as stream:
                stream.writelines(lines)
        self.count += len(rejected)
        check_rejected(self.count, self._limit, self._path.parent)


def check_rejected(count: int, limit: int | None, folder: Path) -> None:
    """Raise an InputError for more rejections than are allowed."""
    if limit is not None and count > limit:
        raise InputError(
            f"{count} lines rejected, --max-rejected allows {limit}",
            f"see {folder / REJECTED}, mend the corpus or raise the limit",
        )


def join_refused(folder: Path, refused: Iterable[Path]) -> None:
    """Put what engines refused behind the rejections of reading and encoding.

    Args:
        folder: of the shards.
        refused: a file for each engine.
    """
    path = folder / REJECTED

    def lines() -> Iterator[bytes]:
        if path.exists():
            with path.open("rb") as stream:
                yield from (
                    line.rstrip(b"\n") for line in stream if not json.loads(line).get("engine")
                )
        for part in refused:
            with part.open("rb") as stream:
                yield from (line.rstrip(b"\n") for line in stream)

    rewrite(path, lines())
