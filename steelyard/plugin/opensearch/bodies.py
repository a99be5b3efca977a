"""The JSON of searches, as pure functions: what any HTTP client may send to ``/NAME/_search``.

Vectors and terms go in, JSON values come out; nothing here asks a server or imports its client.
Field names default to those of indexes that Steelyard writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from steelyard.plugin.fusion import Fusion
from steelyard.types import DenseVectors

Json = dict[str, Any]

MAX_WINDOW = 10_000
"""``index.max_result_window``, and the largest k of a k-NN query."""

MAX_QUERY_TERMS = 512
"""The heaviest terms of a query that are searched; a query of 1,024 clauses is refused."""

MAX_WEIGHT = 64.0
"""Largest weight of a clause on rank_features."""

EXTRA_NEIGHBOURS = 100
"""The graph is searched for so many neighbours more than are asked for: a wider search misses
fewer. Of 100,000 clustered vectors in one segment, recall@100 is .989 without and .997 with."""

_SMALLEST = float(np.finfo(np.float32).tiny)


def dense_query(
    vector: Sequence[float] | DenseVectors,
    k: int,
    condition: Json | None = None,
    field: str = "dense",
) -> Json:
    """The k nearest neighbours of a vector, by Lucene's HNSW graph.

    Args:
        vector: ``[d]``; taken into the body as it is.
        k: hits that are wanted; ``EXTRA_NEIGHBOURS`` more are sought.
        condition: a filter as ``opensearch_filter`` compiles it.
        field: a ``knn_vector``.
    """
    clause: Json = {"vector": vector, "k": min(k + EXTRA_NEIGHBOURS, MAX_WINDOW)}
    if condition is not None:
        clause["filter"] = condition
    return {"knn": {field: clause}}


def weighted_terms(
    keys: Iterable[str], weights: Sequence[float]
) -> tuple[dict[str, float], float]:
    """Terms as OpenSearch takes them: no weight over 64, none that is 0 as float32.

    Args:
        keys: token strings.
        weights: theirs, positive, the same number.

    Returns:
        Weight by token, and the factor by which the engine's scores are to be multiplied.
    """
    factor = max(1.0, max(weights, default=0.0) / MAX_WEIGHT)
    terms = {
        # The division may round to just over the limit.
        key: min(weight / factor, MAX_WEIGHT)
        for key, weight in zip(keys, weights, strict=True)
        if weight / factor >= _SMALLEST
    }
    return terms, factor


def sparse_query(
    terms: Mapping[str, float], condition: Json | None = None, field: str = "sparse"
) -> Json:
    """Sum of query weight times impact.

    Args:
        terms: weight by token, as ``weighted_terms`` gives them.
        condition: a filter.
        field: ``rank_features``.
    """
    return filtered({"neural_sparse": {field: {"query_tokens": dict(terms)}}}, condition)


def match_query(text: str, boosts: Mapping[str, float], condition: Json | None = None) -> Json:
    """The engine's own BM25 of the better field, and half of the other's (as BEIR's baseline).

    Args:
        text: the query; not parsed, so that no character has a meaning.
        boosts: factor by field.
        condition: a filter.
    """
    clause = {
        "query": text,
        "fields": [f"{field}^{boost:g}" for field, boost in boosts.items()],
        "type": "best_fields",
        "tie_breaker": 0.5,
    }
    return filtered({"multi_match": clause}, condition)


def filtered(query: Json, condition: Json | None) -> Json:
    """A query among the documents that meet a condition."""
    if condition is None:
        return query
    return {"bool": {"must": [query], "filter": [condition]}}


def search_body(query: Json, size: int, id_field: str | None = "id") -> Json:
    """A search that gives ids and scores only.

    Args:
        query: any.
        size: number of hits.
        id_field: a keyword field with the ids: loading ``_id`` would unpack each hit's stored
            vectors. None takes ``_id``.
    """
    body: Json = {"size": size, "query": query, "_source": False, "track_total_hits": False}
    if id_field is not None:
        body |= {"stored_fields": "_none_", "docvalue_fields": [id_field]}
    return body


def hybrid_body(
    queries: Sequence[Json],
    fusion: Fusion,
    weights: Sequence[float],
    candidates: int,
    size: int,
    id_field: str | None = "id",
) -> Json:
    """Arms joined by the cluster, in one request; needs OpenSearch 2.19 or newer.

    Args:
        queries: one an arm: ``dense_query``, ``sparse_query``.
        fusion: how.
        weights: one an arm; scores are those of weights whose sum is 1.
        candidates: how many each arm gives (``pagination_depth``).
        size: number of hits.
        id_field: as in ``search_body``.
    """
    query = {"hybrid": {"queries": list(queries), "pagination_depth": candidates}}
    return {**search_body(query, size, id_field), "search_pipeline": pipeline(fusion, weights)}


def pipeline(fusion: Fusion, weights: Sequence[float]) -> Json:
    """A search pipeline that joins the arms, for a request or for ``/_search/pipeline/NAME``."""
    if fusion.method == "rrf":
        combination: Json = {"technique": "rrf", "rank_constant": fusion.rrf_k}
        return {
            "phase_results_processors": [{"score-ranker-processor": {"combination": combination}}]
        }
    total = sum(weights)
    combination = {
        "technique": "arithmetic_mean",
        "parameters": {"weights": [weight / total for weight in weights]},
    }
    normalisation = {"normalization": {"technique": "min_max"}, "combination": combination}
    return {"phase_results_processors": [{"normalization-processor": normalisation}]}
