"""Where a collection keeps what: its columns, how a missing value looks, what its index compares.

Ours has the columns ``id``, ``parent_id``, ``title``, ``text``, ``dense``, ``sparse`` and ``m_x``
for each metadata field x. Servers before 2.5 have no null, so on every server a column ``h_x``
says whether the document has x; Milvus Lite has nulls. An adopted collection has what it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from steelyard.errors import EngineError
from steelyard.plugin.engine import DENSE, SPARSE, Generation

PROPERTY = "steelyard"
"""The collection property that holds the generation's description."""

VALUE_PREFIX, PRESENCE_PREFIX = "m_", "h_"
"""So that a metadata field may be called ``id`` or ``text``."""

TEXTS = ("parent_id", "title", "text")

ALWAYS, NULL, FLAG, DYNAMIC = "always", "null", "flag", "dynamic"
"""How a missing value looks: there is none; null; by a column of its own; no such JSON key."""


@dataclass(frozen=True, slots=True)
class Column:
    """A metadata field's column.

    Attributes:
        name: of the column.
        kind: "keyword", "int", "float" or "bool".
        presence: how a missing value looks.
        flag: the column that says whether it is there; only where that is how it looks.
    """

    name: str
    kind: str
    presence: str = NULL
    flag: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of one collection.

    Attributes:
        key: the primary key's column.
        key_is_int: an INT64; ids are strings for us all the same.
        texts: column by field: ``parent_id``, ``title``, ``text``, as far as they are stored.
        fields: the metadata columns by field.
        dense, sparse: columns; None where the collection lacks the arm.
        metric: "IP" or "COSINE", of the dense index.
        index_type: of the dense index.
    """

    key: str
    key_is_int: bool
    texts: Mapping[str, str]
    fields: Mapping[str, Column]
    dense: str | None
    sparse: str | None
    metric: str = "IP"
    index_type: str = "HNSW"

    @property
    def readable(self) -> list[str]:
        """The columns that make a document."""
        columns = [self.key, *self.texts.values()]
        for column in self.fields.values():
            columns += [column.name, *([column.flag] if column.flag else [])]
        return list(dict.fromkeys(columns))


@dataclass(frozen=True, slots=True)
class Description:
    """What a server says of a collection.

    Attributes:
        name: its own, whatever alias it was asked by.
        columns: by name, as pymilvus describes them.
        dynamic: it takes fields that are not declared.
        properties: kept with it.
    """

    name: str
    columns: Mapping[str, Mapping[str, Any]]
    dynamic: bool
    properties: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Description:
        """From ``describe_collection``."""
        return cls(
            described["collection_name"],
            {column["name"]: column for column in described["fields"]},
            bool(described.get("enable_dynamic_field")),
            described.get("properties") or {},
        )

    def generation(self) -> Generation:
        """The description that it carries.

        Raises:
            EngineError: it was not written by Steelyard.
        """
        return Generation.from_json(self.properties.get(PROPERTY, ""), f"collection {self.name}")


def own_layout(generation: Generation, *, lite: bool) -> Layout:
    """Of a collection that Steelyard makes."""
    texts: tuple[str, ...] = TEXTS
    if SPARSE in generation.arms_elsewhere:
        # The other engine holds the texts. Passages are found by their parent in both.
        texts = ("parent_id",) if generation.passages else ()
    return Layout(
        key="id",
        key_is_int=False,
        texts={name: name for name in texts},
        fields={
            name: Column(VALUE_PREFIX + name, kind, NULL)
            if lite
            else Column(VALUE_PREFIX + name, kind, FLAG, PRESENCE_PREFIX + name)
            for name, kind in generation.fields.items()
        },
        dense=DENSE if DENSE in generation.arms else None,
        sparse=SPARSE if SPARSE in generation.arms else None,
        index_type="FLAT" if lite else "HNSW",
    )


def adopted_layout(
    generation: Generation, description: Description, index: Mapping[str, Any]
) -> Layout:
    """Of a collection that someone else made; ``generation.columns`` names every column.

    Args:
        generation: as ``adopt`` stamped it.
        description: of the collection.
        index: of the dense column, from ``describe_index``.

    Raises:
        EngineError: a column has gone.
    """
    named, columns = generation.columns, description.columns
    for name in ("id", DENSE):
        if named.get(name) not in columns:
            raise EngineError(
                f"{description.name} has no column {named.get(name)!r}, which was its {name}",
                "adopt it again",
            )
    return Layout(
        key=named["id"],
        key_is_int=int(columns[named["id"]]["type"]) == INT64,
        texts={name: named[name] for name in TEXTS if name in named},
        fields={
            name: _adopted_column(named.get(name, name), kind, description)
            for name, kind in generation.fields.items()
        },
        dense=named[DENSE],
        sparse=None,
        metric=str(index["metric_type"]).upper(),
        index_type=str(index["index_type"]).upper(),
    )


def _adopted_column(name: str, kind: str, description: Description) -> Column:
    column = description.columns.get(name)
    if column is None:
        return Column(name, kind, DYNAMIC)
    return Column(name, kind, NULL if column.get("nullable") else ALWAYS)


# pymilvus.DataType, whose import takes a second.
BOOL, INT8, INT64, FLOAT, DOUBLE, VARCHAR, FLOAT_VECTOR = 1, 2, 5, 10, 11, 21, 101
VECTOR_TYPES = range(100, 200)
KINDS = {
    "keyword": {VARCHAR},
    "int": set(range(INT8, INT64 + 1)),
    "float": {FLOAT, DOUBLE},
    "bool": {BOOL},
}
"""Types of columns that serve a metadata field's type."""
