"""A ready search by query_text, for people to paste."""

from __future__ import annotations

import json
import shlex
from typing import Any

from steelyard.plugin.engine import DENSE, SPARSE, Generation
from steelyard.plugin.opensearch.mapping import SPARSE as SPARSE_FIELD
from steelyard.plugin.opensearch.settings import API_KEY, CA, PASSWORD, USER, Settings

CANDIDATES = 100
"""Of each arm: a choice for serving; evaluation takes 1,000."""


def text_query(generation: Generation, text: str, *, k: int = 10) -> dict[str, Any]:
    """A request body that names neither vectors nor models.

    Args:
        generation: whose arms and fields are searched.
        text: the query.
        k: number of hits.
    """
    dense = generation.columns.get("dense", DENSE)
    sparse = generation.columns.get("sparse", SPARSE_FIELD)
    queries: list[dict[str, Any]] = []
    if DENSE in generation.arms:
        queries.append({"neural": {dense: {"query_text": text, "k": CANDIDATES}}})
    if SPARSE in generation.arms:
        queries.append({"neural_sparse": {sparse: {"query_text": text}}})
    query = queries[0]
    if len(queries) > 1:
        # The fusion scales scores over what each arm brings: the depth is our candidates.
        query = {"hybrid": {"queries": queries, "pagination_depth": CANDIDATES}}
    return {"size": k, "_source": {"excludes": [dense, sparse]}, "query": query}


def curl(settings: Settings, path: str, body: dict[str, Any]) -> str:
    """The call of a search; the login stays in the environment.

    Args:
        settings: the server.
        path: from the slash on.
        body: of the request.
    """
    words = ["curl", "-s", "-H", "'Content-Type: application/json'"]
    if settings.user:
        words += ["-u", f'"${USER}:${PASSWORD}"']
    if settings.api_key:
        words += ["-H", f'"Authorization: ApiKey ${API_KEY}"']
    if settings.ca:
        words += ["--cacert", f'"${CA}"']
    scheme = "https" if settings.tls else "http"
    words += [shlex.quote(f"{scheme}://{settings.where}{path}"), "-d"]
    return " ".join([*words, shlex.quote(json.dumps(body, ensure_ascii=False))])
