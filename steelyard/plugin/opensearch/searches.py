"""What is asked of one index, as calls without a connection: see ``requests``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelyard.errors import EngineError, InputError
from steelyard.plugin.engine import (
    DENSE,
    NO_CANDIDATES,
    SPARSE,
    Candidates,
    Generation,
    best_first,
)
from steelyard.plugin.filters import Filter
from steelyard.plugin.fusion import Fusion
from steelyard.plugin.opensearch.bodies import (
    MAX_QUERY_TERMS,
    MAX_WINDOW,
    Json,
    dense_query,
    hybrid_body,
    match_query,
    search_body,
    sparse_query,
    weighted_terms,
)
from steelyard.plugin.opensearch.filter import opensearch_filter
from steelyard.plugin.opensearch.json_text import dumps
from steelyard.plugin.opensearch.layout import INNER_PRODUCT, Layout
from steelyard.plugin.opensearch.refusals import refusal
from steelyard.plugin.opensearch.requests import RETRIED, Request, Steps
from steelyard.plugin.opensearch.words import bounded_text
from steelyard.plugin.text_match import TextMatch
from steelyard.plugin.vocabulary import TermKeys
from steelyard.types import DenseVectors, SparseVectors

Found = tuple[list[str], NDArray[np.float64]]

HYBRID_VERSION = (2, 19)
"""The first with ``pagination_depth`` and the score-ranker-processor."""

_HITS_A_REQUEST = 20_000
_QUERIES_A_REQUEST = 50
_PARTS = ("hits.hits._score", "hits.hits.{id}", "error", "status", "timed_out", "_shards")


class Searches:
    """The arms of one index.

    Args:
        generation: that it holds.
        layout: where things are.
        keys: of the pack's tokens.
        text_match: settings of the match arm.
    """

    def __init__(
        self, generation: Generation, layout: Layout, keys: TermKeys, text_match: TextMatch
    ) -> None:
        self.generation, self.layout, self.keys = generation, layout, keys
        self.boosts = {
            path: text_match.title_boost if path == layout.title else 1.0 for path in layout.texts
        }

    def dense(
        self, queries: DenseVectors, k: int, offset: int, filter: Filter | None
    ) -> Steps[list[Candidates]]:
        """Neighbours by inner product, found in the HNSW graph: approximate.

        Raises:
            EngineError: queries of another dimension, or with NaN.
        """
        self._check_dense(queries)
        condition = self.condition(filter)
        usable = np.flatnonzero(queries.any(axis=1)).tolist()
        clauses = [
            dense_query(queries[row], offset + k, condition, self.layout.dense) for row in usable
        ]
        answers = [NO_CANDIDATES] * len(queries)
        found = yield from self._search(clauses, k, offset)
        for row, (ids, scores) in zip(usable, found, strict=True):
            products = self.layout.inner_products(scores, _norm(self.layout, queries[row]))
            answers[row] = _page(ids, products, k, offset)
        return answers

    def sparse(
        self, queries: SparseVectors, k: int, offset: int, filter: Filter | None
    ) -> Steps[list[Candidates]]:
        """Sums of query weight times impact, exact over a query's 512 heaviest terms.

        Raises:
            EngineError: queries of another vocabulary, or none was given to the engine.
        """
        self._check_sparse(queries)
        condition = self.condition(filter)
        terms = self.query_terms(queries)
        usable = [row for row, (weights, _) in enumerate(terms) if weights]
        clauses = [sparse_query(terms[row][0], condition, self.layout.sparse) for row in usable]
        answers = [NO_CANDIDATES] * len(queries)
        found = yield from self._search(clauses, k, offset)
        for row, (names, scores) in zip(usable, found, strict=True):
            factor = terms[row][1] / self.generation.scale
            answers[row] = _page(names, scores * factor, k, offset)
        return answers

    def both(
        self, dense: DenseVectors, sparse: SparseVectors, k: int, filter: Filter | None
    ) -> Steps[dict[str, list[Candidates] | EngineError]]:
        """Ranks 1 to k of both arms for one query, in one request.

        Raises:
            EngineError: as ``dense`` and ``sparse``; an arm that the engine refuses is its error
                in the answer.
        """
        self._check_dense(dense)
        self._check_sparse(sparse)
        _check_window(k, 0)
        condition, layout = self.condition(filter), self.layout
        ((terms, factor),) = self.query_terms(sparse)
        clauses: dict[str, Json] = {}
        if dense.any():
            clauses[DENSE] = dense_query(dense[0], k, condition, layout.dense)
        if terms:
            clauses[SPARSE] = sparse_query(terms, condition, layout.sparse)
        answers: dict[str, list[Candidates] | EngineError] = {
            arm: [NO_CANDIDATES] for arm in (DENSE, SPARSE)
        }
        if not clauses:
            return answers
        bodies = [search_body(clause, k, layout.id) for clause in clauses.values()]
        request = many_searches(self.generation.name, bodies, layout.id)
        answer = yield request
        responses = responses_of(request.action, answer, len(bodies))
        for arm, response in zip(clauses, responses, strict=True):
            try:
                ids, scores = _read(request.action, response, layout.id)
            except EngineError as error:
                answers[arm] = error
                continue
            if arm == DENSE:
                scores = layout.inner_products(scores, _norm(layout, dense[0]))
            else:
                scores = scores * (factor / self.generation.scale)
            answers[arm] = [_page(ids, scores, k, 0)]
        return answers

    def match(
        self, queries: Sequence[str], k: int, offset: int, filter: Filter | None
    ) -> Steps[list[Candidates]]:
        """The engine's own BM25 over title and text."""
        condition = self.condition(filter)
        texts = [bounded_text(text) for text in queries]
        usable = [row for row, text in enumerate(texts) if text.strip()]
        clauses = [match_query(texts[row], self.boosts, condition) for row in usable]
        answers = [NO_CANDIDATES] * len(texts)
        found = yield from self._search(clauses, k, offset)
        for row, (ids, scores) in zip(usable, found, strict=True):
            answers[row] = _page(ids, scores, k, offset)
        return answers

    def hybrid(
        self,
        dense: DenseVectors,
        sparse: SparseVectors,
        fusion: Fusion,
        candidates: int,
        k: int,
        offset: int,
        filter: Filter | None,
        version: tuple[int, int],
    ) -> Steps[list[Candidates]]:
        """Both arms joined by the cluster.

        Raises:
            EngineError: an older OpenSearch, or not both arms are here.
            InputError: more ranks than candidates.
        """
        name = self.generation.name
        if not {DENSE, SPARSE} <= set(self.generation.arms):
            raise EngineError(
                f"{name} holds the arms {', '.join(self.generation.arms)} only",
                "let the searcher join the arms",
            )
        if version < HYBRID_VERSION:
            raise EngineError(
                f"OpenSearch {version[0]}.{version[1]} does not join arms as Steelyard asks, "
                f"{HYBRID_VERSION[0]}.{HYBRID_VERSION[1]} and newer do",
                "let the searcher join the arms",
            )
        if offset + k > candidates:
            raise InputError(
                f"offset {offset} + k {k} of {candidates} candidates",
                "ask for fewer, or raise candidates",
            )
        self._check_dense(dense)
        self._check_sparse(sparse)
        condition, layout = self.condition(filter), self.layout
        terms = self.query_terms(sparse)
        bodies, factors, usable = [], [], []
        for row in range(len(dense)):
            clauses, weights = [], []
            if dense[row].any():
                clauses.append(dense_query(dense[row], candidates, condition, layout.dense))
                weights.append(fusion.weights[0])
            if terms[row][0]:
                clauses.append(sparse_query(terms[row][0], condition, layout.sparse))
                weights.append(fusion.weights[1])
            if clauses:
                usable.append(row)
                factors.append(1.0 if fusion.method == "rrf" else sum(weights))
                bodies.append(
                    hybrid_body(clauses, fusion, weights, candidates, offset + k, layout.id)
                )
        answers = [NO_CANDIDATES] * len(dense)
        found = yield from self._ask_all(bodies, k, offset)
        for row, factor, (ids, scores) in zip(usable, factors, found, strict=True):
            # RRF ties often: the cluster's own order, so that pages neither overlap nor skip.
            answers[row] = best_first(ids[offset:], scores[offset:] * factor, k)
        return answers

    def condition(self, filter: Filter | None) -> Json | None:
        """A filter compiled for this index."""
        if filter is None:
            return None
        return opensearch_filter(filter, self.generation.fields, self.layout.fields)

    def query_terms(self, queries: SparseVectors) -> list[tuple[dict[str, float], float]]:
        """Each row's terms and the factor of its scores: see ``weighted_terms``."""
        if len(queries) and int(np.diff(queries.indptr).max()) > MAX_QUERY_TERMS:
            queries = queries.heaviest(MAX_QUERY_TERMS)
        return [
            weighted_terms(self.keys.keys(ids.tolist()), weights.tolist())
            for ids, weights in queries.rows()
        ]

    def _check_dense(self, queries: DenseVectors) -> None:
        generation = self.generation
        if queries.shape[1] != generation.dims:
            raise EngineError(
                f"queries of {queries.shape[1]} dimensions for {generation.name}, which has "
                f"{generation.dims}",
                "search with a pack of the index's space",
            )
        if not np.isfinite(queries).all():
            raise EngineError("a query vector with NaN or infinity", "encode the query again")

    def _check_sparse(self, queries: SparseVectors) -> None:
        generation = self.generation
        if queries.vocabulary_size != generation.vocabulary_size:
            raise EngineError(
                f"queries of {queries.vocabulary_size:,} columns for {generation.name}, which has "
                f"{generation.vocabulary_size:,}",
                "search with a pack of the index's space",
            )

    def _search(self, clauses: list[Json], k: int, offset: int) -> Steps[list[Found]]:
        bodies = [search_body(clause, offset + k, self.layout.id) for clause in clauses]
        return self._ask_all(bodies, k, offset)

    def _ask_all(self, bodies: list[Json], k: int, offset: int) -> Steps[list[Found]]:
        """Ids and the engine's scores of ranks 1 to ``offset + k`` for each query."""
        _check_window(k, offset)
        at_once = min(max(1, _HITS_A_REQUEST // (offset + k)), _QUERIES_A_REQUEST)
        found: list[Found] = []
        for first in range(0, len(bodies), at_once):
            part = bodies[first : first + at_once]
            request = many_searches(self.generation.name, part, self.layout.id)
            answer = yield request
            found += read_many(request.action, answer, len(part), self.layout.id)
        return found


def many_searches(index: str, bodies: Sequence[Json], id_field: str | None) -> Request:
    """Searches of one index in one request, which is busy if one of them is."""
    header = dumps({"index": index, "allow_partial_search_results": False}) + b"\n"
    path = ",".join(f"responses.{part}" for part in _PARTS)
    return Request(
        f"search {index}",
        "POST",
        "/_msearch",
        b"".join(header + dumps(body) + b"\n" for body in bodies),
        {"filter_path": path.replace("{id}", "_id" if id_field is None else "fields")},
        busy=lambda answer: any(
            int(part.get("status", 200)) in RETRIED for part in answer.get("responses", [])
        ),
    )


def read_many(action: str, answer: Json, expected: int, id_field: str | None) -> list[Found]:
    """Ids and scores of each search.

    Raises:
        EngineError: one was refused, or not all shards answered it.
    """
    responses = responses_of(action, answer, expected)
    return [_read(action, response, id_field) for response in responses]


def responses_of(action: str, answer: Json, expected: int) -> list[Json]:
    """The answer to each of many searches, refusals among them.

    Raises:
        EngineError: not all were answered.
    """
    responses: list[Json] = answer.get("responses", [])
    if len(responses) != expected:
        raise EngineError(f"cannot {action}: {expected} queries sent, {len(responses)} answered")
    return responses


def check_complete(action: str, response: Mapping[str, Any]) -> None:
    """Refuse a search's answer that lacks shards.

    Raises:
        EngineError: it was refused, or is not complete.
    """
    if "error" in response:
        raise refusal(action, int(response.get("status", 500)), response)
    if response.get("timed_out") or response.get("_shards", {}).get("failed"):
        raise EngineError(f"cannot {action}: not all shards answered", "try again")


def hit_id(hit: Json, id_field: str | None) -> str | None:
    """A hit's document id; None where its id column is empty, so that nobody can ask for it.

    Args:
        hit: found by a search that asked for ``id_field`` as a doc value.
        id_field: None is ``_id``.
    """
    if id_field is None:
        return str(hit["_id"])
    values = hit.get("fields", {}).get(id_field)
    return str(values[0]) if values else None


def _read(action: str, response: Json, id_field: str | None) -> Found:
    check_complete(action, response)
    hits = response.get("hits", {}).get("hits", [])
    if id_field is None:
        scores = np.array([hit["_score"] for hit in hits], dtype=np.float64)
        return [hit["_id"] for hit in hits], scores
    named = [(hit_id(hit, id_field), hit["_score"]) for hit in hits]
    ids = [name for name, _ in named if name is not None]
    known = [score for name, score in named if name is not None]
    return ids, np.array(known, dtype=np.float64)


def _check_window(k: int, offset: int) -> None:
    if k < 1 or offset < 0 or offset + k > MAX_WINDOW:
        raise InputError(
            f"offset {offset} + k {k} candidates, OpenSearch gives 1 to {MAX_WINDOW:,}",
            "ask for fewer",
        )


def _norm(layout: Layout, query: DenseVectors) -> float:
    return 1.0 if layout.space == INNER_PRODUCT else float(np.linalg.norm(query))


def _page(ids: list[str], scores: NDArray[np.float64], k: int, offset: int) -> Candidates:
    if (np.diff(scores) < 0).all():  # as they came, without ties: there is nothing to sort
        return Candidates(ids[offset : offset + k], scores[offset : offset + k])
    best = best_first(ids, scores, offset + k)
    return Candidates(best.ids[offset:], best.scores[offset:])
