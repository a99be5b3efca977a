"""One generation in OpenSearch, open for reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from steelyard.errors import EngineError
from steelyard.plugin.abilities import check_find
from steelyard.plugin.engine import (
    DENSE,
    MATCH,
    SPARSE,
    VECTOR_ARMS,
    AbsentArm,
    Arm,
    Candidates,
    StoredDocument,
)
from steelyard.plugin.filters import Filter
from steelyard.plugin.fusion import Fusion
from steelyard.plugin.opensearch import finding, reading
from steelyard.plugin.opensearch.arms import SyncArm
from steelyard.plugin.opensearch.connection import Connection
from steelyard.plugin.opensearch.searches import Searches
from steelyard.types import DenseVectors, EncodedDocuments, SparseVectors


def searchable(target: Searches) -> tuple[str, ...]:
    """The arms of an index: of vectors that it holds, and of texts that it has indexed."""
    vectors = tuple(arm for arm in VECTOR_ARMS if arm in target.generation.arms)
    return vectors + ((MATCH,) if target.layout.texts else ())


class OpenSearchIndex:
    """One index, open for reading; safe to use from many threads."""

    def __init__(self, connection: Connection, target: Searches) -> None:
        self._connection, self._target = connection, target
        self.generation = target.generation
        self.arms = searchable(target)
        name = self.generation.name
        self.dense: Arm[DenseVectors] = (
            SyncArm(connection, target.dense) if DENSE in self.arms else AbsentArm(DENSE, name)
        )
        self.sparse: Arm[SparseVectors] = (
            SyncArm(connection, target.sparse) if SPARSE in self.arms else AbsentArm(SPARSE, name)
        )
        self.match: Arm[Sequence[str]] = (
            SyncArm(connection, target.match) if MATCH in self.arms else AbsentArm(MATCH, name)
        )

    def search_both(
        self,
        dense: DenseVectors,
        sparse: SparseVectors,
        k: int,
        *,
        filter: Filter | None = None,
        timeout: float | None = None,
    ) -> Mapping[str, list[Candidates] | EngineError]:
        """Both vector arms of one query in one request: see ``SearchesBoth``."""
        return self._connection.run(self._target.both(dense, sparse, k, filter), timeout)

    def hybrid(
        self,
        dense: DenseVectors,
        sparse: SparseVectors,
        fusion: Fusion,
        candidates: int,
        k: int,
        *,
        filter: Filter | None = None,
        offset: int = 0,
        timeout: float | None = None,
    ) -> list[Candidates]:
        """Both arms joined by the cluster: see ``FusesArms`` and docs/engines/opensearch.md.

        Raises:
            EngineError: an OpenSearch before 2.19, or an index without both arms.
        """
        steps = self._target.hybrid(
            dense, sparse, fusion, candidates, k, offset, filter, self._connection.version
        )
        return self._connection.run(steps, timeout)

    def get(
        self,
        ids: Sequence[str],
        *,
        vectors: bool = False,
        terms: bool = False,
        timeout: float | None = None,
    ) -> Mapping[str, StoredDocument]:
        """Stored documents by id, also those that no search sees yet."""
        steps = reading.get(self._target, ids, vectors=vectors, terms=terms)
        return self._connection.run(steps, timeout)

    def highlight(
        self, ids: Sequence[str], text: str, *, timeout: float | None = None
    ) -> Mapping[str, Mapping[str, Sequence[str]]]:
        """Fragments by id and field: see ``Highlights``; the texts' own < and & stay as they are.

        None where texts are not indexed.
        """
        return self._connection.run(reading.highlight(self._target, ids, text), timeout)

    def find(
        self,
        *,
        parents: Sequence[str] | None = None,
        filter: Filter | None = None,
        timeout: float | None = None,
    ) -> list[str]:
        """Ids by parent and filter: see ``FindsIds``. The index is refreshed first."""
        check_find(parents, filter)
        return self._connection.run(finding.find(self._target, parents, filter), timeout)

    def count(self) -> int:
        """Number of documents that searches see."""
        return self._connection.run(reading.count(self.generation.name))

    def export(self) -> EncodedDocuments:
        """Everything that is stored, ``sparse`` as impacts, in order of id."""
        return self._connection.run(reading.export(self._target))
