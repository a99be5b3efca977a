"""Both arms' searches, many queries a request.

Ids are read from doc values: loading ``_id`` would unpack each hit's stored vectors.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelyard.errors import EngineError, InputError
from steelyard.plugin.engine import NO_CANDIDATES, Candidates, Generation, best_first
from steelyard.plugin.filters import Filter
from steelyard.plugin.opensearch.connection import RETRIED, Connection
from steelyard.plugin.opensearch.filter import opensearch_filter
from steelyard.plugin.opensearch.mapping import DENSE, ID, SPARSE
from steelyard.plugin.opensearch.refusals import refusal
from steelyard.plugin.vocabulary import TermKeys
from steelyard.types import DenseVectors, SparseVectors

MAX_WINDOW = 10_000
"""``index.max_result_window``, and the largest k of a k-NN query."""

MAX_QUERY_TERMS = 512
"""The heaviest terms of a query that are searched; a query of 1,024 clauses is refused."""

MAX_WEIGHT = 64.0
"""Largest weight of a clause on rank_features."""

MIN_NEIGHBOURS = 100
"""Neighbours that the graph is searched for at least, however few are asked for."""

_HITS_A_REQUEST = 20_000
_QUERIES_A_REQUEST = 50
_FILTER_PATH = ",".join(
    f"responses.{path}"
    for path in ("hits.hits._score", "hits.hits.fields", "error", "status", "timed_out", "_shards")
)


class DenseArm:
    """Neighbours by inner product, found in Lucene's HNSW graph."""

    def __init__(self, connection: Connection, generation: Generation) -> None:
        self._connection, self._generation = connection, generation

    def search(
        self,
        queries: DenseVectors,
        k: int,
        *,
        filter: Filter | None = None,
        offset: int = 0,
        timeout: float | None = None,
    ) -> list[Candidates]:
        """Approximate: see ``Arm.search``. Scores are inner products, to float32's precision.

        Raises:
            EngineError: queries of another dimension.
        """
        del timeout
        generation = self._generation
        if queries.shape[1] != generation.dims:
            raise EngineError(
                f"queries of {queries.shape[1]} dimensions for {generation.name}, which has "
                f"{generation.dims}",
                "search with a pack of the index's space",
            )
        condition = _condition(filter, generation)
        usable = np.flatnonzero(queries.any(axis=1)).tolist()
        bodies = []
        for row in usable:
            neighbours = min(max(offset + k, MIN_NEIGHBOURS), MAX_WINDOW)
            clause: dict[str, Any] = {"vector": queries[row].tolist(), "k": neighbours}
            if condition is not None:
                clause["filter"] = condition
            bodies.append({"knn": {DENSE: clause}})
        answers = [NO_CANDIDATES] * len(queries)
        found = _search(self._connection, generation, bodies, k, offset)
        for row, (ids, scores) in zip(usable, found, strict=True):
            answers[row] = _page(ids, inner_products(scores), k, offset)
        return answers


class SparseArm:
    """Sums of query weight times impact, by rank_features."""

    def __init__(self, connection: Connection, generation: Generation, keys: TermKeys) -> None:
        self._connection, self._generation, self._keys = connection, generation, keys

    def search(
        self,
        queries: SparseVectors,
        k: int,
        *,
        filter: Filter | None = None,
        offset: int = 0,
        timeout: float | None = None,
    ) -> list[Candidates]:
        """Exact over a query's 512 heaviest terms: see ``Arm.search``.

        Raises:
            EngineError: queries of another vocabulary, or none was given to the engine.
        """
        del timeout
        generation = self._generation
        if queries.vocabulary_size != generation.vocabulary_size:
            raise EngineError(
                f"queries of {queries.vocabulary_size:,} columns for {generation.name}, which has "
                f"{generation.vocabulary_size:,}",
                "search with a pack of the index's space",
            )
        condition = _condition(filter, generation)
        usable = np.flatnonzero(np.diff(queries.indptr)).tolist()
        if len(usable) and int(np.diff(queries.indptr).max()) > MAX_QUERY_TERMS:
            queries = queries.heaviest(MAX_QUERY_TERMS)
        bodies, factors = [], []
        for row in usable:
            ids, weights = queries.row(row)
            factor = max(1.0, float(weights.max()) / MAX_WEIGHT)
            scaled = np.minimum(weights.astype(np.float64) / factor, MAX_WEIGHT)
            # The engine refuses a weight that is 0 as float32; it would add nothing.
            terms = {
                key: weight
                for key, weight in zip(self._keys.keys(ids.tolist()), scaled.tolist(), strict=True)
                if weight >= float(np.finfo(np.float32).tiny)
            }
            clause = {"neural_sparse": {SPARSE: {"query_tokens": terms}}}
            bodies.append(
                clause
                if condition is None
                else {"bool": {"must": [clause], "filter": [condition]}}
            )
            factors.append(factor)
        answers = [NO_CANDIDATES] * len(queries)
        found = _search(self._connection, generation, bodies, k, offset)
        for row, factor, (names, scores) in zip(usable, factors, found, strict=True):
            answers[row] = _page(names, scores * (factor / generation.scale), k, offset)
        return answers


def inner_products(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lucene's scores of inner products p turned back: 1 + p, or 1 / (1 - p) below 0."""
    return np.where(scores >= 1, scores - 1, 1 - 1 / np.maximum(scores, 1e-30))


def _condition(filter: Filter | None, generation: Generation) -> dict[str, Any] | None:
    return None if filter is None else opensearch_filter(filter, generation.fields)


def _page(ids: list[str], scores: NDArray[np.float64], k: int, offset: int) -> Candidates:
    best = best_first(ids, scores, offset + k)
    return Candidates(best.ids[offset:], best.scores[offset:])


def _search(
    connection: Connection, generation: Generation, queries: list[Any], k: int, offset: int
) -> list[tuple[list[str], NDArray[np.float64]]]:
    """Ids and the engine's scores of ranks 1 to ``offset + k`` for each query."""
    if k < 1 or offset < 0 or offset + k > MAX_WINDOW:
        raise InputError(
            f"offset {offset} + k {k} candidates, OpenSearch gives 1 to {MAX_WINDOW:,}",
            "ask for fewer",
        )
    bodies = [
        {
            "size": offset + k,
            "query": query,
            "_source": False,
            "stored_fields": "_none_",
            "docvalue_fields": [ID],
            "track_total_hits": False,
        }
        for query in queries
    ]
    at_once = min(max(1, _HITS_A_REQUEST // (offset + k)), _QUERIES_A_REQUEST)
    found = []
    for first in range(0, len(bodies), at_once):
        found += _ask(connection, generation.name, bodies[first : first + at_once])
    return found


def _ask(
    connection: Connection, index: str, bodies: list[dict[str, Any]]
) -> list[tuple[list[str], NDArray[np.float64]]]:
    """One request, sent again while a part of its answer is that the server is busy."""
    action = f"search {index}"
    header = json.dumps({"index": index, "allow_partial_search_results": False})
    lines = "".join(f"{header}\n{json.dumps(body)}\n" for body in bodies)
    for last in connection.backoff:
        answer = connection.request(
            action, "POST", "/_msearch", lines, parameters={"filter_path": _FILTER_PATH}
        )
        responses = answer.get("responses", [])
        statuses = {int(response.get("status", 200)) for response in responses}
        if last or not statuses & RETRIED:
            break
    if len(responses) != len(bodies):
        raise EngineError(f"{len(bodies)} queries sent to {index}, {len(responses)} answered")
    return [_read(action, response) for response in responses]


def _read(action: str, response: dict[str, Any]) -> tuple[list[str], NDArray[np.float64]]:
    if "error" in response:
        raise refusal(action, int(response.get("status", 500)), response)
    if response.get("timed_out") or response.get("_shards", {}).get("failed"):
        raise EngineError(f"cannot {action}: not all shards answered", "try again")
    hits = response.get("hits", {}).get("hits", [])
    ids = [hit["fields"][ID][0] for hit in hits]
    return ids, np.array([hit["_score"] for hit in hits], dtype=np.float64)
