"""A document encoder that costs nothing: bytes of a text, counted; for tests of everything else.

Importable by name, so that worker processes can open it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.documents.protocol import DocumentEncoder
from steelyard.errors import InputError
from steelyard.types import DocumentVectors, SparseVectors

DIMS, VOCABULARY = 8, 256


class TableTower:
    """Dense: the mean of a random row for each byte; sparse: square roots of the bytes' counts."""

    def __init__(self) -> None:
        self._table = np.random.default_rng(7).standard_normal((VOCABULARY, DIMS), np.float32)

    def encode_document(self, texts: Sequence[str]) -> DocumentVectors:
        rows = [np.bincount(np.frombuffer(t.encode(), np.uint8), minlength=256) for t in texts]
        counts = np.stack(rows).astype(np.float32)
        dense = counts @ self._table
        dense /= np.linalg.norm(dense, axis=1, keepdims=True)
        dense[["poison" in text for text in texts]] = np.nan
        ids = [np.flatnonzero(row).astype(np.int32) for row in counts]
        weights = [np.sqrt(row[i]) for row, i in zip(counts, ids, strict=True)]
        sparse = SparseVectors.from_rows(list(zip(ids, weights, strict=True)), VOCABULARY)
        return DocumentVectors(dense, sparse)

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        return np.array([len(text) for text in texts], dtype=np.int64)


@dataclass(frozen=True)
class KillsItself:
    """Opens a table tower that kills its own process with SIGKILL where a text says so.

    Attributes:
        once: file that says that it has happened; None kills every time.
    """

    once: Path | None

    def __call__(self) -> DocumentEncoder:
        killer = self

        class Tower(TableTower):
            def encode_document(self, texts: Sequence[str]) -> DocumentVectors:
                if any("deadly" in text for text in texts) and killer.may():
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().encode_document(texts)

        return Tower()

    def may(self) -> bool:
        """Whether to kill now."""
        if self.once is None:
            return True
        try:
            self.once.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


@dataclass(frozen=True)
class WaitsForFile:
    """Opens a table tower that notes where it runs, and encodes nothing before a file is there."""

    folder: Path

    def __call__(self) -> DocumentEncoder:
        import time

        import ray

        folder = self.folder

        class Tower(TableTower):
            def encode_document(self, texts: Sequence[str]) -> DocumentVectors:
                node = ray.get_runtime_context().get_node_id()
                (folder / f"at-{node}").touch()
                while not (folder / "go").exists():
                    time.sleep(0.01)
                return super().encode_document(texts)

        return Tower()


def refuses() -> DocumentEncoder:
    """Cannot be opened."""
    raise InputError("no such model on this machine", "copy it there")
