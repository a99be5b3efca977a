"""A query, encoded, as one request to OpenSearch that any HTTP client can send."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from steelyard.errors import InputError
from steelyard.plugin.engine import DENSE, SPARSE
from steelyard.plugin.fusion import Fusion
from steelyard.plugin.opensearch.bodies import (
    MAX_QUERY_TERMS,
    MAX_WINDOW,
    Json,
    dense_query,
    hybrid_body,
    search_body,
    sparse_query,
    weighted_terms,
)
from steelyard.plugin.vocabulary import TermKeys
from steelyard.types import EncodedQueries


def opensearch_request(
    encoded: EncodedQueries,
    keys: TermKeys,
    fusion: Fusion,
    *,
    arms: Sequence[str],
    candidates: int,
    k: int,
    condition: Json | None = None,
    dense_field: str = DENSE,
    sparse_field: str = SPARSE,
) -> Json:
    """The body of ``POST /NAME/_search``.

    An arm to which the query says nothing (no known token) is left out.

    Args:
        encoded: one query.
        keys: of the pack's tokens.
        fusion: how two arms are joined.
        arms: ``dense``, ``sparse`` or both.
        candidates: how many each of two arms gives.
        k: number of hits.
        condition: a query of OpenSearch's own, inside each arm.
        dense_field, sparse_field: where the index has its vectors.

    Raises:
        InputError: more candidates than OpenSearch gives, or no arm has anything to say.
    """
    if max(k, candidates) > MAX_WINDOW:
        raise InputError(
            f"{max(k, candidates):,} hits, OpenSearch gives {MAX_WINDOW:,}", "ask for fewer"
        )
    wanted = candidates if len(arms) > 1 else k
    queries, weights = [], []
    if DENSE in arms and encoded.dense.any():
        queries.append(dense_query(numbers(encoded.dense[0]), wanted, condition, dense_field))
        weights.append(fusion.weights[0])
    ids, values = encoded.sparse.heaviest(MAX_QUERY_TERMS).row(0)
    if SPARSE in arms and len(ids):
        terms, _ = weighted_terms(keys.keys(ids.tolist()), numbers(values))
        queries.append(sparse_query(terms, condition, sparse_field))
        weights.append(fusion.weights[1])
    if not queries:
        raise InputError("no token of this query is known to the pack", "ask something else")
    if len(queries) == 1:
        body = search_body(queries[0], k, id_field=None)
    else:
        body = hybrid_body(queries, fusion, weights, candidates, k, id_field=None)
    # Each hit's vectors would be thousands of numbers.
    return {**body, "_source": {"excludes": [dense_field, sparse_field]}}


def numbers(values: Any) -> list[float]:
    """float32 as the shortest numbers that read back as the same float32."""
    return [float(str(value)) for value in np.asarray(values, np.float32)]
