"""One generation of a Lucene folder, open for reading."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

import numpy as np

from steelyard.errors import EngineError
from steelyard.plugin.abilities import check_find
from steelyard.plugin.engine import (
    DENSE,
    MATCH,
    NO_CANDIDATES,
    SPARSE,
    AbsentArm,
    Arm,
    Candidates,
    Generation,
    Queries,
    StoredDocument,
    best_first,
)
from steelyard.plugin.filter_mask import FilterMasks
from steelyard.plugin.filters import Filter
from steelyard.plugin.flat import FlatArm, check_window
from steelyard.plugin.local_files import file_errors
from steelyard.plugin.lucene.build import current_build, open_dense
from steelyard.plugin.lucene.documents import DocumentFile
from steelyard.plugin.lucene.folder import DOCUMENTS, LUCENE
from steelyard.plugin.lucene.impact_reader import ImpactReader
from steelyard.plugin.lucene.jvm import start_jvm
from steelyard.types import DenseVectors, EncodedDocuments, SparseVectors

MAX_TERMS = 512
"""The heaviest terms of a query are searched, as in every engine."""

_ATTEMPTS = 3


class LuceneIndex:
    """The sealed documents of a generation; sealed again, they are read anew.

    Args:
        folder: of the generation.
        generation: its description.

    Raises:
        EngineError: it was dropped, never sealed, or is damaged.
    """

    def __init__(self, folder: Path, generation: Generation) -> None:
        self.generation = generation
        self.arms = generation.arms
        builds = self._builds = _Builds(folder, generation)
        absent = generation.name
        # They do not refer to this index: without a cycle, files are let go of with it.
        self.dense: Arm[DenseVectors] = (
            _Latest(lambda: builds.now().dense) if DENSE in self.arms else AbsentArm(DENSE, absent)
        )
        self.sparse: Arm[SparseVectors] = (
            _Latest(lambda: builds.now().sparse)
            if SPARSE in self.arms
            else AbsentArm(SPARSE, absent)
        )
        self.match: Arm[Sequence[str]] = AbsentArm(MATCH, absent)

    def get(
        self,
        ids: Sequence[str],
        *,
        vectors: bool = False,
        terms: bool = False,
        timeout: float | None = None,
    ) -> Mapping[str, StoredDocument]:
        """Stored documents by id; unknown ids are left out."""
        del timeout  # nothing is waited for
        opened, found = self._builds.now(), {}
        for identifier in ids:
            row = opened.rows.get(identifier)
            if row is not None:
                found[identifier] = StoredDocument(
                    opened.documents.document(row, self.generation.fields),
                    np.array(opened.vectors[row]) if vectors else None,
                    opened.documents.impacts(row) if terms else None,
                )
        return found

    def find(
        self,
        *,
        parents: Sequence[str] | None = None,
        filter: Filter | None = None,
        timeout: float | None = None,
    ) -> list[str]:
        """Ids by parent and filter: see ``FindsIds``. What is not sealed yet is seen by none."""
        del timeout  # nothing is waited for
        check_find(parents, filter)
        opened = self._builds.now()
        keep = np.ones(len(opened.rows), dtype=np.bool_)
        if filter is not None:
            keep &= opened.masks.mask(filter)
        if parents is not None:
            wanted = set(parents)
            keep &= [parent in wanted for parent in opened.documents.column("parent_id")]
        return sorted(identifier for identifier, row in opened.rows.items() if keep[row])

    def count(self) -> int:
        """Number of documents."""
        return len(self._builds.now().rows)

    def export(self) -> EncodedDocuments:
        """Everything that is stored, ``sparse`` as impacts; the dense vectors stay on the disk."""
        opened = self._builds.now()
        return EncodedDocuments(
            [
                opened.documents.document(row, self.generation.fields)
                for row in range(len(opened.documents))
            ],
            opened.vectors,
            opened.documents.sparse(self.generation.vocabulary_size),
        )


class _Builds:
    """The build that is current, opened; what it replaces goes when no search uses it."""

    def __init__(self, folder: Path, generation: Generation) -> None:
        self._folder, self._generation = folder, generation
        self._lock = threading.Lock()
        self._opened = self._open()

    def now(self) -> _Opened:
        """Opened anew if the generation was sealed again."""
        with file_errors(f"read {self._folder}"):
            build = current_build(self._folder)
        if build != self._opened.build:
            with self._lock:
                if build != self._opened.build:
                    self._opened = self._open()
        return self._opened

    def _open(self) -> _Opened:
        # A build may be replaced between looking it up and opening its last file.
        for _ in range(_ATTEMPTS):
            build = current_build(self._folder)
            if build is None:
                break
            try:
                with file_errors(f"open {self._generation.name}"):
                    return _open(self._folder / build, self._generation)
            except EngineError:
                if build == current_build(self._folder):
                    raise
        raise EngineError(
            f"{self._generation.name} is not in {self._folder.parent}, or was never sealed",
            "it was dropped or is being made: resolve again",
        )


@dataclass(frozen=True, slots=True)
class _Opened:
    """One build."""

    build: str
    documents: DocumentFile
    rows: dict[str, int]
    vectors: DenseVectors
    dense: Arm[DenseVectors]
    sparse: Arm[SparseVectors]
    masks: FilterMasks


def _open(build: Path, generation: Generation) -> _Opened:
    documents = DocumentFile(build / DOCUMENTS)
    ids: list[str] = documents.column("id")
    vectors = open_dense(build, generation)
    if vectors.shape != (len(ids), generation.dims):
        raise EngineError(
            f"{build} holds {len(ids)} documents of {generation.dims} dimensions and vectors of "
            f"shape {vectors.shape}",
            "index the corpus again",
        )
    masks = FilterMasks(generation.fields, len(ids), documents.metadata)
    sparse: Arm[SparseVectors] = AbsentArm(SPARSE, generation.name)
    if SPARSE in generation.arms:
        reader = ImpactReader(start_jvm(), build / LUCENE, ids)
        sparse = _ImpactArm(ids, reader, generation.scale, masks)
    rows = {identifier: row for row, identifier in enumerate(ids)}
    dense = FlatArm(generation.name, ids, vectors, masks)
    return _Opened(build.name, documents, rows, vectors, dense, sparse, masks)


class _ImpactArm:
    def __init__(
        self, ids: list[str], reader: ImpactReader, scale: float, masks: FilterMasks
    ) -> None:
        self._ids, self._reader, self._scale, self._masks = ids, reader, scale, masks

    def search(
        self,
        queries: SparseVectors,
        k: int,
        *,
        filter: Filter | None = None,
        offset: int = 0,
        timeout: float | None = None,
    ) -> list[Candidates]:
        """Inner products of query weights and impacts, divided by the scale."""
        check_window(k, offset)
        allowed = None if filter is None else self._masks.mask(filter)
        rows = list(queries.heaviest(MAX_TERMS).rows())
        answers = []
        for found, scores in self._reader.search(
            rows, offset + k, allowed=allowed, timeout=timeout
        ):
            ids = [self._ids[row] for row in found.tolist()]
            best = best_first(ids, scores / self._scale, offset + k)
            page = Candidates(best.ids[offset:], best.scores[offset:])
            answers.append(page if len(page.ids) else NO_CANDIDATES)
        return answers


class _Latest(Generic[Queries]):
    """An arm of the build that is current at each search."""

    def __init__(self, arm: Callable[[], Arm[Queries]]) -> None:
        self._arm: Callable[[], Arm[Queries]] = arm

    def search(
        self,
        queries: Queries,
        k: int,
        *,
        filter: Filter | None = None,
        offset: int = 0,
        timeout: float | None = None,
    ) -> list[Candidates]:
        """See ``Arm.search``."""
        arm = self._arm()
        return arm.search(queries, k, filter=filter, offset=offset, timeout=timeout)
