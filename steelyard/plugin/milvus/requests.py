"""What is sent for a search or a look-up, and what its answers mean; sync and async alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from steelyard.errors import EngineError, InputError
from steelyard.plugin.engine import (
    NO_CANDIDATES,
    Candidates,
    Generation,
    Queries,
    StoredDocument,
    best_first,
)
from steelyard.plugin.filters import Filter
from steelyard.plugin.milvus.filter import (
    behind_expression,
    ids_expression,
    milvus_expression,
    strings_expression,
)
from steelyard.plugin.milvus.layout import Layout
from steelyard.plugin.milvus.rows import stored_document
from steelyard.plugin.milvus.schema import dense_search_parameters
from steelyard.plugin.milvus_rest import MAX_WINDOW
from steelyard.types import DenseVectors, SparseVectors

READ_LEVEL = "Bounded"
"""Searches see what is some seconds old: each would have to wait for the newest ("Strong").
``seal`` waits until the newest is seen."""

_HITS_A_REQUEST = 50_000
"""A request of Milvus Lite that lasts much longer than ten seconds is cut off by gRPC's pings."""

IDS_A_REQUEST = 500


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """The requests of one call of ``Arm.search``.

    Attributes:
        requests: named arguments of the client's ``search``, one each.
        rows: which queries they are, in order; the others have no candidates.
        factors: scores are the engine's times this, one for each of ``rows``.
        total: number of queries.
        k: how many candidates each.
    """

    requests: list[dict[str, Any]]
    rows: list[int]
    factors: NDArray[np.float64]
    total: int
    k: int

    def answers(self, found: Sequence[Any]) -> list[Candidates]:
        """From the requests' answers, in order."""
        answers = [NO_CANDIDATES] * self.total
        hits = (hits for answer in found for hits in answer)
        for row, factor, hit in zip(self.rows, self.factors, hits, strict=True):
            scores = np.asarray(hit.distances, dtype=np.float64) * factor
            answers[row] = best_first([str(i) for i in hit.ids], scores, self.k)
        return answers


PlanArm: TypeAlias = Callable[[Generation, Layout, Queries, int, "Filter | None", int], SearchPlan]
"""Generation, layout, queries, k, filter, offset to requests: ``plan_dense``, ``plan_sparse``."""


def plan_dense(
    generation: Generation,
    layout: Layout,
    queries: DenseVectors,
    k: int,
    filter: Filter | None,
    offset: int,
) -> SearchPlan:
    """Neighbours by inner product.

    Raises:
        EngineError: queries of another dimension, or not finite.
        InputError: more candidates than Milvus gives, or a filter that cannot be.
    """
    if queries.shape[1] != generation.dims:
        raise EngineError(
            f"queries of {queries.shape[1]} dimensions for {generation.name}, which has "
            f"{generation.dims}",
            "search with a pack of the index's space",
        )
    if not np.isfinite(queries).all():
        raise EngineError("a query vector is not finite", "a NaN comes from the query encoder")
    rows = np.flatnonzero(queries.any(axis=1))
    usable = queries[rows]
    # COSINE divides by the query's length, an inner product does not.
    lengths = np.linalg.norm(usable.astype(np.float64), axis=1)
    factors = lengths if layout.metric == "COSINE" else np.ones(len(rows))
    parameters = dense_search_parameters(layout, offset + k)
    window = _Window(generation, layout, k, filter, offset, parameters, str(layout.dense))
    return SearchPlan(window.requests(list(usable)), rows.tolist(), factors, len(queries), k)


def plan_sparse(
    generation: Generation,
    layout: Layout,
    queries: SparseVectors,
    k: int,
    filter: Filter | None,
    offset: int,
) -> SearchPlan:
    """Inner products of query weights and impacts, divided by the scale.

    Raises:
        EngineError: queries of another vocabulary.
        InputError: as ``plan_dense``.
    """
    if queries.vocabulary_size != generation.vocabulary_size:
        raise EngineError(
            f"queries of {queries.vocabulary_size:,} columns for {generation.name}, which has "
            f"{generation.vocabulary_size:,}",
            "search with a pack of the index's space",
        )
    rows = np.flatnonzero(np.diff(queries.indptr)).tolist()
    width = queries.vocabulary_size + 1
    vectors = [
        csr_matrix((weights, ids, [0, len(ids)]), shape=(1, width))
        for ids, weights in (queries.row(i) for i in rows)
    ]
    window = _Window(
        generation, layout, k, filter, offset, {"metric_type": "IP"}, str(layout.sparse)
    )
    factors = np.full(len(rows), 1 / generation.scale)
    return SearchPlan(window.requests(vectors), rows, factors, len(queries), k)


@dataclass(frozen=True, slots=True)
class _Window:
    """Which ranks of which documents a search asks for."""

    generation: Generation
    layout: Layout
    k: int
    filter: Filter | None
    offset: int
    parameters: dict[str, Any]
    column: str

    def requests(self, vectors: list[Any]) -> list[dict[str, Any]]:
        """So many queries a request that its answer stays of moderate size."""
        if self.k < 1 or self.offset < 0 or self.offset + self.k > MAX_WINDOW:
            raise InputError(
                f"offset {self.offset} + k {self.k} candidates, Milvus gives 1 to {MAX_WINDOW:,}",
                "ask for fewer",
            )
        expression = milvus_expression(self.filter, self.layout)
        at_once = min(max(1, _HITS_A_REQUEST // self.k), MAX_WINDOW)
        return [
            {
                "collection_name": self.generation.name,
                "data": vectors[first : first + at_once],
                "anns_field": self.column,
                "limit": self.k,
                "offset": self.offset,
                "filter": expression,
                "search_params": self.parameters,
                "consistency_level": READ_LEVEL,
            }
            for first in range(0, len(vectors), at_once)
        ]


def plan_get(
    generation: Generation, layout: Layout, ids: Sequence[str], *, vectors: bool, terms: bool
) -> list[dict[str, Any]]:
    """Named arguments of the client's ``query``, one for each request."""
    columns = list(layout.readable)
    if vectors and layout.dense:
        columns.append(layout.dense)
    if terms and layout.sparse:
        columns.append(layout.sparse)
    return [
        {
            "collection_name": generation.name,
            "filter": ids_expression(ids[first : first + IDS_A_REQUEST], layout),
            "output_fields": columns,
            "consistency_level": READ_LEVEL,
        }
        for first in range(0, len(ids), IDS_A_REQUEST)
    ]


def find_expressions(
    layout: Layout, parents: Sequence[str] | None, filter: Filter | None, where: str
) -> list[str]:
    """What to ask for, some hundred parents each.

    Raises:
        InputError: a filter that cannot be.
        EngineError: the collection does not know its documents' parents.
    """
    condition = milvus_expression(filter, layout)
    if parents is None:
        return [condition]
    column = layout.texts.get("parent_id")
    if column is None:
        raise EngineError(
            f"{where} does not say which document a passage is of",
            "look for the parents in the engine that holds the texts",
        )
    wanted = sorted(set(parents))
    parts = (wanted[i : i + IDS_A_REQUEST] for i in range(0, len(wanted), IDS_A_REQUEST))
    return [
        f"{strings_expression(column, part)}{f' and {condition}' if condition else ''}"
        for part in parts
    ]


def plan_find(
    generation: Generation, layout: Layout, expression: str, after: str | None
) -> dict[str, Any]:
    """Named arguments of the client's ``query`` for the next ids, ascending.

    This is what pymilvus's own iterator sends, which would paste the id in unescaped.
    """
    if after is not None:
        expression = f"{behind_expression(after, layout)} and ({expression})"
    return {
        "collection_name": generation.name,
        "filter": expression,
        "output_fields": [layout.key],
        "limit": MAX_WINDOW,
        "iterator": "True",
        "reduce_stop_for_best": "True",
        "consistency_level": "Strong",
    }


def read_documents(
    generation: Generation, layout: Layout, found: Sequence[Any], *, vectors: bool, terms: bool
) -> Mapping[str, StoredDocument]:
    """The answers to ``plan_get``, by id."""
    stored = [
        stored_document(row, generation, layout, vectors=vectors, terms=terms)
        for rows in found
        for row in rows
    ]
    return {one.document.id: one for one in stored}
