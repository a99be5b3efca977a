"""Raw lines to documents. What cannot be one is rejected with its line and the reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from steelyard.indexer.reading.json_lines import (
    check_characters,
    check_id_length,
    read_id,
    read_object,
    read_string,
)
from steelyard.indexer.reading.metadata_fields import read_value
from steelyard.indexer.reading.readers import RawLine
from steelyard.types import Document, MetadataValue

MAX_DOCUMENT_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Rejection:
    """A line that is not a document, or a document that could not be encoded."""

    line: int
    id: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """A document and the line it stands on."""

    line: int
    document: Document


def validate(
    lines: Iterable[RawLine], fields: Mapping[str, str] | None = None
) -> Iterator[ReadDocument | Rejection]:
    """One result for every line, in order.

    Args:
        lines: JSON objects with ``_id`` or ``id``, ``text`` and optionally ``title``,
            ``parent_id`` and ``metadata``; declared metadata fields are looked for in
            ``metadata`` and beside it.
        fields: declared metadata fields and their types.
    """
    first_seen: dict[str, int] = {}
    for line in lines:
        identifier = None
        try:
            value = read_object(line.data)
            identifier = read_id(value)
            document = _document(identifier, value, fields or {})
            if identifier in first_seen:
                raise ValueError(f"duplicate id, first on line {first_seen[identifier]}")
        except ValueError as error:
            yield Rejection(line.number, identifier, str(error))
        else:
            first_seen[identifier] = line.number
            yield ReadDocument(line.number, document)


def _document(identifier: str, value: Mapping[str, Any], fields: Mapping[str, str]) -> Document:
    title, text = read_string(value, "title"), read_string(value, "text")
    if not title.strip() and not text.strip():
        raise ValueError("empty text")
    size = len(title.encode()) + len(text.encode())
    if size > MAX_DOCUMENT_BYTES:
        raise ValueError(f"too large: {size:,} bytes, at most {MAX_DOCUMENT_BYTES:,}")
    parent = read_string(value, "parent_id") or identifier
    check_id_length("parent_id", parent)
    return Document(identifier, text, title, parent, _metadata(value, fields))


def _metadata(value: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, MetadataValue]:
    if not fields:
        return {}
    inner = value.get("metadata") or {}
    if not isinstance(inner, dict):
        raise ValueError(f"metadata is not an object but {type(inner).__name__}")
    found: dict[str, MetadataValue] = {}
    for name, kind in fields.items():
        given = inner.get(name, value.get(name))
        if isinstance(given, str):
            check_characters(f"metadata field {name}", given)
        try:
            read = read_value(kind, given)
        except ValueError as error:
            raise ValueError(f"metadata field {name}: {error}") from error
        if read is not None:
            found[name] = read
    return found
