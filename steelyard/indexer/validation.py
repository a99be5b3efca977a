"""Raw lines to documents. What cannot be one is rejected with its line and the reason."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from steelyard.indexer.metadata_fields import read_value
from steelyard.indexer.readers import RawLine
from steelyard.types import MAX_ID_BYTES, Document, MetadataValue

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


class _BadLineError(Exception):
    def __init__(self, reason: str, identifier: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.identifier = reason, identifier


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
        try:
            document = _document(line.data, fields or {})
            if document.id in first_seen:
                raise _BadLineError(
                    f"duplicate id, first on line {first_seen[document.id]}", document.id
                )
        except _BadLineError as bad:
            yield Rejection(line.number, bad.identifier, bad.reason)
        else:
            first_seen[document.id] = line.number
            yield ReadDocument(line.number, document)


def _document(data: bytes, fields: Mapping[str, str]) -> Document:
    try:
        value = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _BadLineError(f"not UTF-8 at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise _BadLineError(f"broken JSON: {str(error)[:100]}") from error
    if not isinstance(value, dict):
        raise _BadLineError(f"not a JSON object but {type(value).__name__}")
    identifier = _identifier(value)
    try:
        title, text = _string(value, "title"), _string(value, "text")
        if not title.strip() and not text.strip():
            raise _BadLineError("empty text")
        size = len(title.encode()) + len(text.encode())
        if size > MAX_DOCUMENT_BYTES:
            raise _BadLineError(f"too large: {size:,} bytes, at most {MAX_DOCUMENT_BYTES:,}")
        parent = _string(value, "parent_id") or identifier
        return Document(identifier, text, title, parent, _metadata(value, fields))
    except _BadLineError as bad:
        raise _BadLineError(bad.reason, identifier) from bad


def _identifier(value: Mapping[str, Any]) -> str:
    identifier = value.get("_id", value.get("id"))
    if isinstance(identifier, int) and not isinstance(identifier, bool):
        identifier = str(identifier)
    if identifier is None or identifier == "":
        raise _BadLineError("missing id")
    if not isinstance(identifier, str):
        raise _BadLineError(f"id is not a string but {type(identifier).__name__}")
    _check_characters("id", identifier)
    if len(identifier.encode()) > MAX_ID_BYTES:
        raise _BadLineError(f"id of {len(identifier.encode())} bytes, at most {MAX_ID_BYTES}")
    return identifier


def _string(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise _BadLineError(f"{name} is not a string but {type(found).__name__}")
    _check_characters(name, found)
    return found


def _check_characters(name: str, text: str) -> None:
    if "\0" in text:
        raise _BadLineError(f"{name} holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _BadLineError(f"{name} holds a lone surrogate, so it is not UTF-8") from error


def _metadata(value: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, MetadataValue]:
    if not fields:
        return {}
    inner = value.get("metadata") or {}
    if not isinstance(inner, dict):
        raise _BadLineError(f"metadata is not an object but {type(inner).__name__}")
    found: dict[str, MetadataValue] = {}
    for name, kind in fields.items():
        try:
            read = read_value(kind, inner.get(name, value.get(name)))
        except ValueError as error:
            raise _BadLineError(f"metadata field {name}: {error}") from error
        if isinstance(read, str):
            _check_characters(f"metadata field {name}", read)
        if read is not None:
            found[name] = read
    return found
