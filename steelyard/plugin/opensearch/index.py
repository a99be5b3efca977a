"""One generation in OpenSearch, open for reading."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from steelyard.errors import EngineError
from steelyard.plugin.engine import MATCH, AbsentArm, Arm, Generation, StoredDocument
from steelyard.plugin.opensearch.arms import DenseArm, SparseArm
from steelyard.plugin.opensearch.bulk import stored_document
from steelyard.plugin.opensearch.connection import Connection
from steelyard.plugin.opensearch.mapping import DENSE, ID, SPARSE
from steelyard.plugin.opensearch.refusals import refusal
from steelyard.plugin.vocabulary import TermKeys
from steelyard.types import DenseVectors, EncodedDocuments, SparseVectors

_BATCH = 500
_PAGE_NUMBERS = 500_000
_KEEP_ALIVE = "5m"


class OpenSearchIndex:
    """One index, open for reading."""

    def __init__(self, connection: Connection, generation: Generation, keys: TermKeys) -> None:
        self._connection, self._keys = connection, keys
        self.generation = generation
        self.dense: Arm[DenseVectors] = DenseArm(connection, generation)
        self.sparse: Arm[SparseVectors] = SparseArm(connection, generation, keys)
        self.match: Arm[Sequence[str]] = AbsentArm(MATCH, generation.name)
        self.arms = generation.arms

    def get(
        self,
        ids: Sequence[str],
        *,
        vectors: bool = False,
        terms: bool = False,
        timeout: float | None = None,
    ) -> Mapping[str, StoredDocument]:
        """Stored documents by id, also those that no search sees yet."""
        del terms, timeout
        name, found = self.generation.name, {}
        excluded = SPARSE if vectors else f"{DENSE},{SPARSE}"
        for first in range(0, len(ids), _BATCH):
            answer = self._connection.request(
                f"read {name}",
                "POST",
                f"/{name}/_mget",
                {"ids": list(ids[first : first + _BATCH])},
                parameters={"_source_excludes": excluded},
            )
            for document in answer["docs"]:
                if "error" in document:
                    raise refusal(f"read {name}", int(document.get("status", 404)), document)
                if document["found"]:
                    source = document["_source"]
                    found[document["_id"]] = StoredDocument(
                        stored_document(source, self.generation),
                        np.array(source[DENSE], dtype=np.float32) if vectors else None,
                    )
        return found

    def count(self) -> int:
        """Number of documents that searches see."""
        name = self.generation.name
        answer = self._connection.request(f"count {name}", "GET", f"/{name}/_count")
        if answer["_shards"]["failed"]:
            raise EngineError(f"cannot count {name}: not all shards answered", "try again")
        return int(answer["count"])

    def export(self) -> EncodedDocuments:
        """Everything that is stored, ``sparse`` as impacts, in order of id."""
        generation, documents, dense, sparse = self.generation, [], [], []
        for source in self._sources():
            documents.append(stored_document(source, generation))
            dense.append(np.array(source[DENSE], dtype=np.float32))
            terms = source.get(SPARSE) or {}
            ids = np.array(self._keys.ids(terms), dtype=np.int32)
            weights = np.array(list(terms.values()), dtype=np.float32)
            order = np.argsort(ids)
            sparse.append((ids[order], weights[order]))
        vectors = np.array(dense, dtype=np.float32).reshape(len(dense), generation.dims)
        rows = SparseVectors.from_rows(sparse, generation.vocabulary_size)
        return EncodedDocuments(documents, vectors, rows)

    def _sources(self) -> Iterator[dict[str, Any]]:
        """Every document of one point in time."""
        name, request = self.generation.name, self._connection.request
        action = f"export {name}"
        point = request(
            action,
            "POST",
            f"/{name}/_search/point_in_time",
            parameters={"keep_alive": _KEEP_ALIVE, "allow_partial_pit_creation": "false"},
        )["pit_id"]
        body: dict[str, Any] = {
            "size": max(20, min(1000, _PAGE_NUMBERS // self.generation.dims)),
            "sort": [{ID: "asc"}],
            "pit": {"id": point, "keep_alive": _KEEP_ALIVE},
            "track_total_hits": False,
        }
        try:
            while True:
                answer = request(
                    action,
                    "POST",
                    "/_search",
                    body,
                    parameters={"allow_partial_search_results": "false"},
                )
                hits = answer["hits"]["hits"]
                if not hits:
                    return
                for hit in hits:
                    yield hit["_source"]
                body["search_after"] = hits[-1]["sort"]
        finally:
            request(
                action, "DELETE", "/_search/point_in_time", {"pit_id": [point]}, missing_ok=True
            )
