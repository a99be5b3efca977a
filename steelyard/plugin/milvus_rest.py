"""A query, encoded, as one request to Milvus's REST interface that any HTTP client can send.

``v2`` is of Milvus 2.4 and newer. ``v1`` is all that 2.3 has: one vector column, no sparse arm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from steelyard.errors import InputError
from steelyard.plugin.engine import DENSE, SPARSE
from steelyard.plugin.fusion import Fusion
from steelyard.types import EncodedQueries

MAX_WINDOW = 16_384
"""Largest ``offset + k`` of one search, and most queries of one request."""

MIN_EF, EF_FACTOR, MAX_EF = 256, 2, 32_768
"""A search keeps EF_FACTOR times as many neighbours as it returns, and MIN_EF at least."""

APIS = ("v2", "v1")
OUTPUT = ("id", "title", "text")


@dataclass(frozen=True, slots=True)
class RestRequest:
    """``POST path`` with a JSON body."""

    path: str
    body: dict[str, Any]


def search_effort(wanted: int) -> int:
    """HNSW's ``ef``: how many neighbours a search keeps to return ``wanted``."""
    return min(max(MIN_EF, EF_FACTOR * wanted), MAX_EF)


def milvus_request(
    encoded: EncodedQueries,
    collection: str,
    fusion: Fusion,
    *,
    arms: Sequence[str],
    candidates: int,
    k: int,
    condition: str = "",
    api: str = "v2",
    dense_field: str = DENSE,
    sparse_field: str = SPARSE,
    output: Sequence[str] = OUTPUT,
) -> RestRequest:
    """The call of one search.

    Args:
        encoded: one query.
        collection: name or alias.
        fusion: only ``rrf``: Milvus has no min-max.
        arms: ``dense``, ``sparse`` or both; one that has nothing to say is left out.
        candidates: how many each of two arms gives.
        k: number of hits.
        condition: a boolean expression of Milvus's own.
        api: ``v2`` or ``v1``.
        dense_field, sparse_field: columns.
        output: columns that a hit shows.

    Raises:
        InputError: what the interface cannot say, or no arm has anything to say.
    """
    if api not in APIS:
        raise InputError(f"unknown REST interface {api!r}", f"choose one of {', '.join(APIS)}")
    if max(k, candidates) > MAX_WINDOW:
        raise InputError(
            f"{max(k, candidates):,} hits, Milvus gives {MAX_WINDOW:,}", "ask for fewer"
        )
    wanted = candidates if len(arms) > 1 else k
    searches = []
    if DENSE in arms and encoded.dense.any():
        vector = [float(str(value)) for value in encoded.dense[0]]
        searches.append(
            _search(vector, dense_field, wanted, condition, {"ef": search_effort(wanted)})
        )
    ids, weights = encoded.sparse.row(0)
    if SPARSE in arms and len(ids):
        terms = {str(i): float(str(w)) for i, w in zip(ids.tolist(), weights, strict=True)}
        searches.append(_search(terms, sparse_field, wanted, condition, {}))
    if not searches:
        raise InputError("no token of this query is known to the pack", "ask something else")
    if api == "v1":
        return _first_version(searches, collection, k, condition, dense_field, output)
    common = {
        "collectionName": collection,
        "limit": k,
        "outputFields": list(output),
        "consistencyLevel": "Bounded",
    }
    if len(searches) == 1:
        (search,) = searches
        parameters = {"metricType": search.pop("metricType"), "params": search.pop("params")}
        body = {**common, **search, "limit": k, "searchParams": parameters}
        return RestRequest("/v2/vectordb/entities/search", body)
    if fusion.method != "rrf":
        raise InputError(
            f"Milvus does not join arms by {fusion.method}",
            "--fusion rrf, or send --arm dense and --arm sparse and join the answers yourself",
        )
    rerank = {"strategy": "rrf", "params": {"k": fusion.rrf_k}}
    body = {**common, "search": searches, "rerank": rerank}
    return RestRequest("/v2/vectordb/entities/hybrid_search", body)


def _search(
    data: Any, field: str, limit: int, condition: str, parameters: dict[str, Any]
) -> dict[str, Any]:
    search = {
        "data": [data],
        "annsField": field,
        "metricType": "IP",
        "limit": limit,
        "params": parameters,
    }
    return {**search, "filter": condition} if condition else search


def _first_version(
    searches: list[dict[str, Any]],
    collection: str,
    k: int,
    condition: str,
    dense_field: str,
    output: Sequence[str],
) -> RestRequest:
    if [search["annsField"] for search in searches] != [dense_field]:
        raise InputError(
            "the REST interface v1 of Milvus searches the dense arm only", "--arm dense, or v2"
        )
    body: dict[str, Any] = {
        "collectionName": collection,
        "vector": searches[0]["data"][0],
        "limit": k,
        "outputFields": list(output),
    }
    return RestRequest("/v1/vector/search", {**body, "filter": condition} if condition else body)
