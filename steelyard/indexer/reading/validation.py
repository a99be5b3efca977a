"""Records to documents, one by one; what cannot be one has a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steelyard.indexer.reading.corpus import Record
from steelyard.indexer.reading.json_lines import (
    check_characters,
    check_id_length,
    read_id,
    read_string,
)
from steelyard.indexer.reading.mapping import METADATA, PARENT, FieldMapping, look_up
from steelyard.indexer.reading.metadata_fields import read_text, read_value
from steelyard.types import Document, MetadataValue

MAX_DOCUMENT_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that is not a document, or a document that could not be encoded.

    Attributes:
        line: where the record begins in its file, from 1.
        id: as far as it is known.
        reason: in a few words.
        file: its name within the corpus; empty when that is one file.
    """

    line: int
    id: str | None
    reason: str
    file: str = ""


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """A document, and the record it comes from.

    Attributes:
        line: where the record begins in its file, from 1.
        document: whole, or a passage.
        file: as in ``Rejection``.
        passage: which of its record's passages, from 0.
        passages: how many its record gave.
    """

    line: int
    document: Document
    file: str = ""
    passage: int = 0
    passages: int = 1


def read_document(
    record: Record, mapping: FieldMapping, fields: Mapping[str, str]
) -> ReadDocument | Rejection:
    """One record as a document.

    Args:
        record: with ``parent_id`` and ``metadata`` where it has them; declared metadata fields are
            looked for in ``metadata`` and beside it.
        mapping: which of its fields are what.
        fields: declared metadata fields and their types.
    """
    identifier = None
    try:
        if record.value is None:
            raise ValueError(record.reason)
        identifier = read_id(record.value, mapping.ids)
        document = _document(identifier, record, record.value, mapping, fields)
    except ValueError as error:
        return Rejection(record.line, identifier, str(error), record.file)
    return ReadDocument(record.line, document, record.file)


def _document(
    identifier: str,
    record: Record,
    value: Mapping[str, Any],
    mapping: FieldMapping,
    fields: Mapping[str, str],
) -> Document:
    title = read_string(value, mapping.title) if mapping.title else ""
    texts = [read_string(value, name) for name in mapping.text]
    text = texts[0] if len(texts) == 1 else "\n".join(part for part in texts if part.strip())
    if not title.strip() and not text.strip():
        raise ValueError("empty text")
    size = len(title.encode()) + len(text.encode())
    if size > MAX_DOCUMENT_BYTES:
        raise ValueError(f"too large: {size:,} bytes, at most {MAX_DOCUMENT_BYTES:,}")
    parent = read_string(value, PARENT) or identifier
    check_id_length(PARENT, parent)
    metadata = _metadata(value, mapping, fields, record.untyped) if fields else {}
    return Document(identifier, text, title, parent, metadata)


def _metadata(
    value: Mapping[str, Any], mapping: FieldMapping, fields: Mapping[str, str], untyped: bool
) -> dict[str, MetadataValue]:
    inner = {} if untyped else value.get(METADATA) or {}
    if not isinstance(inner, dict):
        raise ValueError(f"metadata is not an object but {type(inner).__name__}")
    found: dict[str, MetadataValue] = {}
    for name, kind in fields.items():
        source = mapping.metadata.get(name, name)
        given = look_up(inner, source)
        if given is None:
            given = look_up(value, source)
        if isinstance(given, str):
            check_characters(f"metadata field {name}", given)
        try:
            if untyped and isinstance(given, str):
                given = read_text(kind, given)
            read = read_value(kind, given)
        except ValueError as error:
            raise ValueError(f"metadata field {name}: {error}") from error
        if read is not None:
            found[name] = read
    return found
