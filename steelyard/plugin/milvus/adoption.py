"""What an existing collection looks like to Steelyard: which column is what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from steelyard.errors import EngineError
from steelyard.plugin.engine import DENSE, Generation
from steelyard.plugin.milvus.layout import (
    FLOAT_VECTOR,
    INT64,
    KINDS,
    TEXTS,
    VARCHAR,
    VECTOR_TYPES,
    Description,
)


def adopted(generation: Generation, description: Description) -> Generation:
    """The generation with every column named and its dimensions known.

    Raises:
        EngineError: a column that is named is not there or of another type, the dense one cannot
            be told, or another dimension.
    """
    if generation.arms != (DENSE,):
        raise EngineError(
            f"Milvus adopts dense vectors, not {' and '.join(generation.arms)}",
            "index the corpus with 'steelyard index' for a sparse arm",
        )
    columns = {"id": _key(generation, description), DENSE: _dense(generation, description)}
    for name in TEXTS:
        if name in generation.columns:
            columns[name] = _named(generation.columns[name], description, {VARCHAR}, name)
        elif name in description.columns and _type(description, name) == VARCHAR:
            columns[name] = name
    for name, kind in generation.fields.items():
        column = generation.columns.get(name, name)
        columns[name] = _named(column, description, KINDS[kind], f"{name} ({kind})")
    for name in sorted(set(generation.columns) - set(columns)):
        raise EngineError(
            f"{name!r} is none of our fields, and not a declared metadata field",
            f"known: {', '.join(['id', DENSE, *TEXTS, *sorted(generation.fields)])}",
        )
    dims = int(description.columns[columns[DENSE]]["params"]["dim"])
    if generation.dims not in (0, dims):
        raise EngineError(
            f"{description.name} has vectors of {dims} dimensions, the pack {generation.dims}",
            "adopt it with the pack of the model that made its vectors",
        )
    return replace(generation, dims=dims, columns=columns)


def comparable(generation: Generation, indexes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The index of an adopted dense column, if its scores can become inner products.

    Args:
        generation: adopted; ``columns`` names its dense column.
        indexes: on that column, from ``describe_index``.

    Raises:
        EngineError: there is none, or its metric is neither IP nor COSINE.
    """
    name, column = generation.name, generation.columns[DENSE]
    if not indexes:
        raise EngineError(f"{name} has no index on {column!r}", "make one, and adopt it again")
    metric = str(indexes[0].get("metric_type", "")).upper()
    if metric not in ("IP", "COSINE"):
        raise EngineError(
            f"the index on {column!r} of {name} compares by {metric or 'nothing known'}, "
            "Steelyard by IP or COSINE",
            "drop that index and make one with metric_type IP",
        )
    return indexes[0]


def _key(generation: Generation, description: Description) -> str:
    keys = [name for name, column in description.columns.items() if column.get("is_primary")]
    named = generation.columns.get("id", keys[0])
    if named != keys[0]:
        raise EngineError(
            f"the primary key of {description.name} is {keys[0]!r}, not {named!r}",
            "documents are named by the primary key",
        )
    if _type(description, named) not in (VARCHAR, INT64):
        raise EngineError(f"the primary key {named!r} is neither VARCHAR nor INT64")
    return named


def _dense(generation: Generation, description: Description) -> str:
    vectors = {
        name: int(column["type"])
        for name, column in description.columns.items()
        if int(column["type"]) in VECTOR_TYPES
    }
    name = generation.columns.get(DENSE)
    if name is None:
        name = DENSE if DENSE in vectors else next(iter(vectors)) if len(vectors) == 1 else None
    if name is None:
        raise EngineError(
            f"{description.name} has {len(vectors)} columns of vectors: "
            f"{', '.join(sorted(vectors)) or 'none'}",
            "say which one is the dense one",
        )
    if vectors.get(name) != FLOAT_VECTOR:
        raise EngineError(
            f"{description.name} has no column {name!r} of float32 vectors",
            f"its columns: {', '.join(description.columns)}",
        )
    return name


def _named(column: str, description: Description, types: set[int], what: str) -> str:
    if column not in description.columns:
        if description.dynamic and column.isidentifier():
            return column
        raise EngineError(
            f"{description.name} has no column {column!r} for {what}",
            f"its columns: {', '.join(description.columns)}",
        )
    if _type(description, column) not in types:
        raise EngineError(f"the column {column!r} of {description.name} is no {what}")
    return column


def _type(description: Description, column: str) -> int:
    return int(description.columns[column]["type"])
