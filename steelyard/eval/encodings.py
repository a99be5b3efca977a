"""The queries of a collection, encoded once for all systems, and what that costs a query."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property

from steelyard.encoders.documents.batching import encode_in_batches
from steelyard.encoders.documents.protocol import FullModel
from steelyard.encoders.pack.metadata import PackMetadata
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import InputError
from steelyard.eval.systems import FULL, System
from steelyard.progress import Progress
from steelyard.types import DenseVectors, SparseVectors

_TIMED_SECONDS = 0.5
_LONG_SECONDS = 10.0
"""Of a full model's first run: what it takes to warm up does not matter, it is not run again."""


class FullQueries:
    """Queries encoded by the document encoder itself; it is opened when first asked for."""

    def __init__(
        self, texts: list[str], open_full_model: Callable[[], FullModel], progress: Progress
    ) -> None:
        self._texts, self._open, self._progress = texts, open_full_model, progress

    @property
    def vectors(self) -> DenseVectors:
        """``[queries, d]``."""
        return self._encoded[0]

    @property
    def seconds(self) -> float:
        """That a query takes."""
        return self._encoded[1]

    @cached_property
    def _encoded(self) -> tuple[DenseVectors, float]:
        with self._progress.stage("encode queries with the full model"):
            model, texts = self._open(), self._texts
            lengths = model.token_lengths(texts)

            def encode() -> DenseVectors:
                return encode_in_batches(texts, lengths, model.encode_query, model.dims)

            started = time.perf_counter()
            vectors = encode()
            took = time.perf_counter() - started
            if took < _LONG_SECONDS:
                return vectors, _seconds_a_query(encode, len(texts))
            return vectors, took / len(texts)


class PackQueries:
    """Queries encoded by one pack, each arm when first asked for.

    Args:
        queries: the pack.
        texts: of the queries.
        full: the same queries, encoded by its document encoder.
    """

    def __init__(self, queries: QueryEncoder, texts: list[str], full: FullQueries) -> None:
        self.queries, self.texts, self.full = queries, texts, full
        self._seconds: dict[tuple[bool, bool], float] = {}

    def dense(self, source: str) -> DenseVectors:
        """``[queries, d]`` by ``full`` or ``lookup``."""
        return self.full.vectors if source == FULL else self._lookup

    @cached_property
    def sparse(self) -> SparseVectors:
        """By the pack's sparse arm."""
        return self.queries.encode_sparse(self.texts)

    @cached_property
    def _lookup(self) -> DenseVectors:
        return self.queries.encode_dense(self.texts)

    def check(self, system: System) -> None:
        """Refuse a system whose sparse arm is not the pack's."""
        kind = self.queries.metadata.sparse.kind
        if system.sparse not in (None, kind):
            raise InputError(
                f"system {system.name!r} wants a {system.sparse} arm, the pack has {kind}",
                f"write {system.name.replace(str(system.sparse), kind)!r}",
            )

    def queries_per_second(self, system: System, other: PackQueries | None = None) -> float | None:
        """Of encoding; None for a system that encodes nothing.

        Args:
            system: which arms it has.
            other: the pack of its sparse arm, if that is not this one.
        """
        sparse, full = system.sparse is not None, system.dense == FULL
        if system.dense is None and not sparse:
            return None
        seconds = self.full.seconds if full else 0.0
        if sparse and other is not None:
            seconds += other._timed(dense=False, sparse=True)
            sparse = False
        if sparse or not full:
            seconds += self._timed(dense=system.dense is not None and not full, sparse=sparse)
        return 1 / seconds

    def _timed(self, *, dense: bool, sparse: bool) -> float:
        if (dense, sparse) not in self._seconds:
            encode: Callable[[list[str]], object] = (
                self.queries.encode_query
                if dense and sparse
                else self.queries.encode_dense
                if dense
                else self.queries.encode_sparse
            )
            encode(self.texts)
            self._seconds[dense, sparse] = _seconds_a_query(
                lambda: encode(self.texts), len(self.texts)
            )
        return self._seconds[dense, sparse]


def encoder_key(metadata: PackMetadata) -> str:
    """The same for packs whose full models encode queries alike."""
    return json.dumps([asdict(metadata.document_encoder), metadata.dense.dims], sort_keys=True)


def _seconds_a_query(encode: Callable[[], object], count: int) -> float:
    """Median over runs that fill half a second; the caller has warmed it up."""
    runs: list[float] = []
    while not runs or sum(runs) < _TIMED_SECONDS:
        started = time.perf_counter()
        encode()
        runs.append(time.perf_counter() - started)
    return statistics.median(runs) / count
