"""The collections that Steelyard makes: their schema and indexes.

HNSW's M, efConstruction and ef are chosen for recall first, at the price of memory and of time to
build; ``steelyard bench recall`` measures what they reach on a collection.
"""

from __future__ import annotations

from typing import Any

from steelyard.plugin.engine import Generation
from steelyard.plugin.milvus.layout import DOUBLE, INT64, VARCHAR, Column, Layout
from steelyard.plugin.milvus_rest import search_effort
from steelyard.types import MAX_ID_BYTES

MAX_VARCHAR = 65535
"""Bytes of a VARCHAR."""

HNSW_M, HNSW_EF_CONSTRUCTION = 32, 256

_TYPES = {"keyword": VARCHAR, "int": INT64, "float": DOUBLE, "bool": 1}


def collection_schema(client: Any, generation: Generation, layout: Layout) -> Any:
    """Both arms, as far as the generation has them, the texts and the metadata columns."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(layout.key, DataType.VARCHAR, is_primary=True, max_length=MAX_ID_BYTES)
    for column in layout.texts.values():
        schema.add_field(column, DataType.VARCHAR, max_length=MAX_VARCHAR)
    for field in layout.fields.values():
        _add_metadata(schema, field)
    if layout.dense:
        schema.add_field(layout.dense, DataType.FLOAT_VECTOR, dim=generation.dims)
    if layout.sparse:
        schema.add_field(layout.sparse, DataType.SPARSE_FLOAT_VECTOR)
    return schema


def _add_metadata(schema: Any, column: Column) -> None:
    from pymilvus import DataType

    options: dict[str, Any] = {"max_length": MAX_VARCHAR} if column.kind == "keyword" else {}
    if not column.flag:
        options["nullable"] = True
    schema.add_field(column.name, DataType(_TYPES[column.kind]), **options)
    if column.flag:
        schema.add_field(column.flag, DataType.BOOL)


def index_parameters(client: Any, layout: Layout) -> Any:
    """How each vector column is searched."""
    parameters = client.prepare_index_params()
    if layout.dense:
        hnsw = {"M": HNSW_M, "efConstruction": HNSW_EF_CONSTRUCTION}
        parameters.add_index(
            layout.dense,
            index_type=layout.index_type,
            metric_type=layout.metric,
            params=hnsw if layout.index_type == "HNSW" else {},
        )
    if layout.sparse:
        parameters.add_index(layout.sparse, index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    return parameters


def dense_search_parameters(layout: Layout, wanted: int) -> dict[str, Any]:
    """How hard an index is searched, by its type.

    Args:
        layout: of the collection.
        wanted: how many neighbours, those that ``offset`` skips among them.
    """
    effort = search_effort(wanted)
    parameters: dict[str, Any] = {}
    if layout.index_type.startswith("HNSW"):
        parameters = {"ef": effort}
    elif layout.index_type.startswith("IVF") or layout.index_type == "SCANN":
        parameters = {"nprobe": 64}
    elif layout.index_type == "DISKANN":
        parameters = {"search_list": effort}
    return {"metric_type": layout.metric, "params": parameters}
