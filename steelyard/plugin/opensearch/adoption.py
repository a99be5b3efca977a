"""An index of vectors that someone else wrote: what is in it, and whether it is what we think."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from steelyard.errors import EngineError
from steelyard.plugin.engine import DENSE as DENSE_ARM
from steelyard.plugin.engine import SPARSE as SPARSE_ARM
from steelyard.plugin.engine import Generation
from steelyard.plugin.opensearch.bodies import dense_query
from steelyard.plugin.opensearch.layout import (
    COSINE,
    DENSE,
    ID,
    INNER_PRODUCT,
    L2,
    METADATA,
    PARENT,
    SPARSE,
    TEXT,
    TITLE,
    Layout,
    is_indexed_text,
    value_at,
)
from steelyard.plugin.opensearch.requests import Request, Steps
from steelyard.plugin.opensearch.searches import check_complete

SPACES = (INNER_PRODUCT, COSINE, L2)

SAMPLE = 20
"""Documents whose stored vectors are compared with the scores that the engine gives them."""

TOLERANCE = 5e-3
"""Of lengths and of scores: an index may hold 16-bit floats."""

_COLUMN_TYPES = {
    "keyword": ("keyword", "constant_keyword", "wildcard", "ip"),
    "int": ("long", "integer", "short", "byte", "unsigned_long"),
    "float": ("double", "float", "half_float", "scaled_float", "long", "integer"),
    "bool": ("boolean",),
}
_ID_TYPES = ("keyword", "constant_keyword", "long", "integer", "short", "byte")


@dataclass(frozen=True, slots=True)
class Column:
    """A field of a mapping.

    Attributes:
        path: by which it is searched.
        source: where its value stands in a document.
        mapping: of the field.
    """

    path: str
    source: str
    mapping: Mapping[str, Any]

    @property
    def type(self) -> str:
        """Of the mapping."""
        return str(self.mapping.get("type", "object"))


def survey(
    name: str,
    mappings: Mapping[str, Any],
    settings: Mapping[str, Any],
    generation: Generation,
) -> tuple[Generation, Layout]:
    """Find our fields in an index.

    Args:
        name: of the index.
        mappings, settings: its own.
        generation: ``columns`` says what it calls our fields; ``dims`` 0 takes the index's.

    Returns:
        The generation with its dimension, the arms that are there and every column found; and
        where things are.

    Raises:
        EngineError: no such column, one of another type, or another dimension.
    """
    columns = columns_of(mappings.get("properties") or {})
    told = generation.columns
    arms, found = [], {}
    space, dims = INNER_PRODUCT, generation.dims
    dense, sparse = _column(name, columns, told, DENSE), _column(name, columns, told, SPARSE)
    if DENSE_ARM in generation.arms:
        dense = dense or _only_vector(name, columns)
        dims, space = _vector_field(name, dense, settings, generation.dims)
        found[DENSE] = dense.path
        arms.append(DENSE_ARM)
    if SPARSE_ARM in generation.arms and sparse is not None:
        _check_type(name, sparse, ("rank_features",), SPARSE)
        found[SPARSE] = sparse.path
        arms.append(SPARSE_ARM)
    if not arms:
        raise EngineError(f"index {name} has no vectors that Steelyard searches")
    paths, sources = {}, {}
    for field, kind in generation.fields.items():
        column = _column(name, columns, told, field) or columns.get(f"{METADATA}.{field}")
        if column is None:
            raise _missing(name, field, field, columns)
        _check_type(name, column, _COLUMN_TYPES[kind], field)
        paths[field], sources[field] = column.path, column.source
    identifier = None if told.get(ID, "_id") == "_id" else _column(name, columns, told, ID)
    if identifier is not None:
        _check_type(name, identifier, _ID_TYPES, ID)
        if identifier.mapping.get("doc_values") is False:
            raise EngineError(
                f"column {identifier.path!r} of index {name} has no doc values, so ids cannot be "
                "read from it",
                "name another column for 'id', or none: then _id is",
            )
    texts = {ours: _column(name, columns, told, ours) for ours in (PARENT, TITLE, TEXT)}
    found |= {ours: column.path for ours, column in texts.items() if column} | paths
    if identifier is not None:
        found[ID] = identifier.path
    layout = Layout(
        id=identifier.path if identifier else None,
        parent=column.source if (column := texts[PARENT]) else None,
        title=column.source if (column := texts[TITLE]) else None,
        text=column.source if (column := texts[TEXT]) else None,
        dense=dense.path if dense else DENSE,
        sparse=sparse.path if sparse else SPARSE,
        fields=paths,
        sources=sources,
        space=space,
        texts=tuple(
            column.source
            for ours in (TITLE, TEXT)
            if (column := texts[ours]) and is_indexed_text(column.mapping)
        ),
        adopted=True,
    )
    return replace(generation, dims=dims, arms=tuple(arms), columns=found), layout


def columns_of(properties: Mapping[str, Any], before: str = "") -> dict[str, Column]:
    """Every field by its path, multi-fields too; nested objects are other documents, so not."""
    found: dict[str, Column] = {}
    for key, mapping in properties.items():
        path = f"{before}{key}"
        if mapping.get("type") == "nested":
            continue
        if "properties" in mapping:
            found |= columns_of(mapping["properties"], f"{path}.")
            continue
        found[path] = Column(path, path, mapping)
        for sub, inner in (mapping.get("fields") or {}).items():
            found[f"{path}.{sub}"] = Column(f"{path}.{sub}", path, inner)
    return found


def check_ids(name: str, layout: Layout) -> Steps[None]:
    """Refuse a column of ids that some documents lack: searches would pass over them.

    Raises:
        EngineError: how many lack it.
    """
    if layout.id is None:
        return
    query = {"query": {"bool": {"must_not": [{"exists": {"field": layout.id}}]}}}
    action = f"look at the ids of {name}"
    answer = yield Request(action, "POST", f"/{name}/_count", query)
    check_complete(action, answer)
    if lacking := int(answer["count"]):
        raise EngineError(
            f"{lacking:,} documents of index {name} have no {layout.id!r}, where ids are to be",
            "fill it in, or name no column for 'id': then _id is (a value longer than the "
            "column's ignore_above is not indexed)",
        )


def check_sample(name: str, layout: Layout, dims: int) -> Steps[None]:
    """Compare scores with the stored vectors, so that no formula is taken on trust.

    Raises:
        EngineError: no vector can be read, they are not of length 1, or scores are something else.
    """
    action = f"look at the vectors of {name}"
    body = {"size": SAMPLE, "_source": [layout.dense], "track_total_hits": False}
    path = f"/{name}/_search"
    answer = yield Request(
        action, "POST", path, {**body, "query": {"exists": {"field": layout.dense}}}
    )
    check_complete(action, answer)
    vectors = [value_at(hit.get("_source") or {}, layout.dense) for hit in answer["hits"]["hits"]]
    vectors = [vector for vector in vectors if vector is not None]
    if not vectors:
        raise EngineError(
            f"no vector of index {name} can be read back",
            "adopt an index that has documents and keeps their _source",
        )
    lengths = np.linalg.norm(np.array(vectors, dtype=np.float64).reshape(-1, dims), axis=1)
    if abs(lengths - 1).max() > TOLERANCE:
        raise EngineError(
            f"vectors of index {name} are not of length 1: there are lengths from "
            f"{lengths.min():.4g} to {lengths.max():.4g}",
            "normalise them: Steelyard compares by inner product",
        )
    query = dense_query(vectors[0], SAMPLE, None, layout.dense)
    answer = yield Request(action, "POST", path, {**body, "query": query})
    check_complete(action, answer)
    for hit in answer["hits"]["hits"]:
        vector = value_at(hit.get("_source") or {}, layout.dense)
        if vector is None:
            continue
        product = float(np.dot(vectors[0], vector))
        told = float(layout.inner_products(np.array([hit["_score"]]), float(lengths[0]))[0])
        if abs(product - told) > TOLERANCE:
            raise EngineError(
                f"index {name} scores a document {hit['_score']:.6g}, which would be an inner "
                f"product of {told:.4f} and is {product:.4f}",
                f"the space type {layout.space!r} is scored otherwise there: index again",
            )


def _column(
    name: str, columns: Mapping[str, Column], told: Mapping[str, str], ours: str
) -> Column | None:
    """A field by what the user calls it, or by our name if there is one.

    Raises:
        EngineError: the user names one that is not there.
    """
    path = told.get(ours, ours)
    if path not in columns and ours in told:
        raise _missing(name, ours, path, columns)
    return columns.get(path)


def _only_vector(name: str, columns: Mapping[str, Column]) -> Column:
    vectors = [column for column in columns.values() if column.type == "knn_vector"]
    if len(vectors) != 1:
        listed = ", ".join(sorted(column.path for column in vectors)) or "none"
        raise EngineError(
            f"index {name} has {len(vectors)} fields of type knn_vector: {listed}",
            "name the one of the pack's space as column 'dense'",
        )
    return vectors[0]


def _vector_field(
    name: str, column: Column, settings: Mapping[str, Any], expected: int
) -> tuple[int, str]:
    """Dimension and space type.

    Raises:
        EngineError: another type or dimension, or a space that is no inner product.
    """
    _check_type(name, column, ("knn_vector",), DENSE)
    mapping = column.mapping
    method = mapping.get("method") or {}
    # Flat or not, as the server likes: {"index": {"knn.space_type": "l2"}}.
    knn = settings.get("index", {})
    inner = knn.get("knn")
    by_setting = inner.get("space_type") if isinstance(inner, dict) else knn.get("knn.space_type")
    space = mapping.get("space_type") or method.get("space_type") or by_setting or L2
    dims = mapping.get("dimension")
    if dims is None or mapping.get("data_type", "float") != "float":
        raise EngineError(
            f"the vectors {column.path!r} of index {name} are not floats of a known dimension",
            "index the corpus with 'steelyard index'",
        )
    if expected and int(dims) != expected:
        raise EngineError(
            f"the vectors {column.path!r} of index {name} have {dims} dimensions, the pack's "
            f"{expected}",
            "adopt it with the pack of its space",
        )
    if space not in SPACES:
        raise EngineError(
            f"the vectors {column.path!r} of index {name} are compared by {space!r}",
            f"Steelyard searches {', '.join(SPACES)}",
        )
    return int(dims), str(space)


def _check_type(name: str, column: Column, types: tuple[str, ...], ours: str) -> None:
    if column.type in types:
        return
    hint = f"name a column of type {' or '.join(types)}"
    if column.type == "text":
        hint += f", such as {column.path}.keyword if there is one"
    raise EngineError(
        f"column {column.path!r} of index {name} has type {column.type}, which cannot be {ours!r}",
        hint,
    )


def _missing(name: str, ours: str, path: str, columns: Mapping[str, Column]) -> EngineError:
    return EngineError(
        f"index {name} has no column {path!r} for {ours!r}",
        f"it has {', '.join(sorted(columns)[:30]) or 'none'}",
    )
