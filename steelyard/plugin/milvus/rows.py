"""Documents as rows of a collection, and rows as documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from steelyard.plugin.engine import Generation, StoredDocument
from steelyard.plugin.milvus.layout import Layout
from steelyard.plugin.milvus.schema import MAX_VARCHAR
from steelyard.types import (
    DenseVectors,
    Document,
    EncodedDocuments,
    MetadataValue,
    SparseVectors,
    l2_normalise,
)

_REQUEST_ROWS, _REQUEST_BYTES = 2000, 8_000_000
"""Of one request: larger ones are not faster, and servers take 64 MB at most."""

_EMPTY: dict[str, Any] = {"keyword": "", "int": 0, "float": 0.0, "bool": False}
"""What stands in the column of a value that is missing."""


def request_rows(
    generation: Generation, layout: Layout, batch: EncodedDocuments, impacts: SparseVectors
) -> Iterator[list[dict[str, Any]]]:
    """The rows of a batch, request by request.

    Of documents with the same id the last is written: a server stores both if they come in one
    request.
    """
    last = {document.id: row for row, document in enumerate(batch.documents)}
    rows: list[dict[str, Any]] = []
    size = 0
    for i in last.values():
        document = batch.documents[i]
        row = _row(layout, document)
        if layout.dense:
            row[layout.dense] = batch.dense[i]
        if layout.sparse:
            ids, weights = impacts.row(i)
            # A document without a term gets the one column that no query has.
            row[layout.sparse] = dict(zip(ids.tolist(), weights.tolist(), strict=True)) or {
                generation.vocabulary_size: 1.0
            }
            size += 8 * len(ids)
        rows.append(row)
        size += 4 * generation.dims + 4 * (len(document.text) + len(document.title)) + 200
        if len(rows) >= _REQUEST_ROWS or size >= _REQUEST_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _row(layout: Layout, document: Document) -> dict[str, Any]:
    texts = {
        "parent_id": document.parent_id or document.id,
        "title": document.title,
        "text": document.text,
    }
    row: dict[str, Any] = {layout.key: document.id}
    for name, column in layout.texts.items():
        row[column] = _cut(texts[name])
    for name, field in layout.fields.items():
        value = document.metadata.get(name)
        if not field.flag:
            row[field.name] = value
            continue
        row[field.flag] = value is not None
        row[field.name] = _EMPTY[field.kind] if value is None else value
    return row


def _cut(text: str) -> str:
    """What a VARCHAR holds; only the displayed text is cut, the vectors saw all of it."""
    if len(text) * 4 <= MAX_VARCHAR:
        return text
    encoded = text.encode()
    return text if len(encoded) <= MAX_VARCHAR else encoded[:MAX_VARCHAR].decode(errors="ignore")


def stored_document(
    row: Mapping[str, Any], generation: Generation, layout: Layout, *, vectors: bool, terms: bool
) -> StoredDocument:
    """A row as it was read; texts that are not stored are empty."""
    identifier = str(row[layout.key])
    texts = {name: str(row.get(column) or "") for name, column in layout.texts.items()}
    document = Document(
        id=identifier,
        text=texts.get("text", ""),
        title=texts.get("title", ""),
        parent_id=texts.get("parent_id") or identifier,
        metadata=_metadata(row, layout),
    )
    dense = row_vector(row, layout) if vectors and layout.dense else None
    impacts = row_impacts(row, generation, layout) if terms and layout.sparse else None
    return StoredDocument(document, dense, impacts)


def _metadata(row: Mapping[str, Any], layout: Layout) -> dict[str, MetadataValue]:
    found = {}
    for name, field in layout.fields.items():
        value = row.get(field.name)
        if value is not None and (not field.flag or row.get(field.flag)):
            found[name] = value
    return found


def row_vector(row: Mapping[str, Any], layout: Layout) -> DenseVectors:
    """The dense vector, float32 ``[d]``; of unit length where the index compares by COSINE."""
    vector: DenseVectors = np.asarray(row[layout.dense or ""], dtype=np.float32)
    if layout.metric == "COSINE":
        vector = l2_normalise(vector[None, :])[0]
    return vector


def row_impacts(row: Mapping[str, Any], generation: Generation, layout: Layout) -> Any:
    """Token ids and impacts, without the column of documents that have no term."""
    terms = sorted(
        (int(i), w)
        for i, w in row[layout.sparse or ""].items()
        if int(i) != generation.vocabulary_size
    )
    ids = np.array([i for i, _ in terms], dtype=np.int32)
    return ids, np.array([w for _, w in terms], dtype=np.float32)
