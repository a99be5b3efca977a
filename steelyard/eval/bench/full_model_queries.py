"""The full model in the look-up's place: a query encoder whose dense vectors a tower makes.

A ``Searcher`` takes it as any other, so both are measured on one search path.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.documents.protocol import FullModel
from steelyard.encoders.pack.files import read_pack
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.types import DenseVectors, EncodedQueries


class FullModelQueries(QueryEncoder):
    """Dense vectors by the document encoder itself; terms as the pack weighs them.

    Thread-safe: see ``SharedModel``.

    Args:
        pack: folder of the query pack.
        model: its document encoder; its query prompt stands for the pack's instructions.
    """

    def __init__(self, pack: Path, model: FullModel) -> None:
        super().__init__(read_pack(pack), str(pack))
        self._model = SharedModel(model)

    def encode_query(
        self, texts: str | Sequence[str], *, instruction: str | None = None
    ) -> EncodedQueries:
        """See ``QueryEncoder``; only a blank query is empty, for a model reads anything else."""
        self._table(instruction)
        many = [texts] if isinstance(texts, str) else list(texts)
        sparse = self.encode_sparse(many)
        blank = np.array([not text.strip() for text in many], dtype=np.bool_)
        return EncodedQueries(self._model.encode(many), sparse, blank, np.zeros_like(blank))

    def close(self) -> None:
        """Let go of the model's thread."""
        self._model.close()


class SharedModel:
    """One model for many clients: what waits while it works becomes its next batch.

    A client alone is answered at once, in a batch of one. This is how services keep a model busy;
    a lock would give each query a batch of its own.

    Args:
        model: called by one thread at a time.

    Attributes:
        batches: so many it has encoded.
    """

    def __init__(self, model: FullModel) -> None:
        self._model = model
        self._waiting: list[tuple[str, Future[NDArray[np.float32]]]] = []
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "steelyard-model")
        self.batches = 0

    def encode(self, texts: Sequence[str]) -> DenseVectors:
        """Query vectors ``[n, d]``; safe to call from many threads."""
        asked = [(text, Future[NDArray[np.float32]]()) for text in texts]
        with self._lock:
            self._waiting += asked
        self._thread.submit(self._encode_waiting)
        return np.stack([row.result() for _, row in asked])

    @property
    def waiting(self) -> int:
        """Queries that no batch has taken yet."""
        return len(self._waiting)

    def close(self) -> None:
        """Encode what waits, and no more."""
        self._thread.shutdown()

    def _encode_waiting(self) -> None:
        with self._lock:
            batch, self._waiting = self._waiting, []
        if not batch:  # an earlier batch took them along
            return
        self.batches += 1
        try:
            vectors = self._model.encode_query([text for text, _ in batch])
        except BaseException as error:  # each client has to hear of it
            for _, row in batch:
                row.set_exception(error)
            return
        for (_, row), vector in zip(batch, vectors, strict=True):
            row.set_result(vector)
