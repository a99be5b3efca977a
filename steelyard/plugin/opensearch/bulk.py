"""Documents to bulk requests; each item's error is told, and busy items are sent again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from steelyard.errors import EngineError
from steelyard.plugin.engine import Generation
from steelyard.plugin.opensearch.connection import RETRIED, Connection
from steelyard.plugin.opensearch.filter import METADATA
from steelyard.plugin.opensearch.mapping import DENSE, ID, PARENT, SPARSE, TEXT, TITLE
from steelyard.plugin.vocabulary import TermKeys
from steelyard.types import Document, EncodedDocuments, SparseVectors

MAX_BYTES = 8_000_000
"""Of one request; a single larger document goes alone."""

_TOLD = 3


def document_lines(
    generation: Generation, batch: EncodedDocuments, impacts: SparseVectors, keys: TermKeys
) -> Iterator[tuple[str, str]]:
    """Each document's id and its two lines of a bulk request."""
    for row, document in enumerate(batch.documents):
        ids, weights = impacts.row(row)
        source: dict[str, Any] = {
            ID: document.id,
            PARENT: document.parent_id or document.id,
            TITLE: document.title,
            TEXT: document.text,
            METADATA: {
                name: value
                for name in generation.fields
                if (value := document.metadata.get(name)) is not None
            },
            DENSE: batch.dense[row].tolist(),
            SPARSE: dict(zip(keys.keys(ids.tolist()), weights.astype(int).tolist(), strict=True)),
        }
        action = {"index": {"_id": document.id}}
        yield document.id, f"{_compact(action)}\n{_compact(source)}\n"


def delete_lines(ids: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each id and its line of a bulk request."""
    for identifier in ids:
        yield identifier, _compact({"delete": {"_id": identifier}}) + "\n"


def send(
    connection: Connection, index: str, lines: Iterable[tuple[str, str]], *, missing_ok: bool
) -> int:
    """Send items in requests of about ``MAX_BYTES``.

    Args:
        connection, index: where to.
        lines: id and lines of each item.
        missing_ok: a document that is not there is no error (deletes).

    Returns:
        How many items were sent, all of them acknowledged.

    Raises:
        EngineError: items were refused; how many, and the first of them with the reasons.
    """
    sent = 0
    for part in _parts(lines):
        _send_part(connection, index, part, missing_ok)
        sent += len(part)
    return sent


def stored_document(source: dict[str, Any], generation: Generation) -> Document:
    """A document out of a hit's ``_source``."""
    values = source.get(METADATA) or {}
    metadata = {
        # JSON does not keep 5.0 and 5 apart everywhere on the way.
        name: float(values[name]) if kind == "float" else values[name]
        for name, kind in generation.fields.items()
        if name in values
    }
    return Document(source[ID], source[TEXT], source[TITLE], source[PARENT], metadata)


def _send_part(
    connection: Connection, index: str, part: list[tuple[str, str]], missing_ok: bool
) -> None:
    for last in connection.backoff:
        answer = connection.request(
            f"write to {index}",
            "POST",
            f"/{index}/_bulk",
            "".join(lines for _, lines in part),
            parameters={"filter_path": "errors,items.*.status,items.*.error"},
        )
        items = answer.get("items", [])
        if len(items) != len(part):
            raise EngineError(f"{len(part)} items sent to {index}, {len(items)} answered")
        busy, refused = [], []
        for sent, item in zip(part, items, strict=True):
            (told,) = item.values()
            status = int(told["status"])
            if status < 300 or (missing_ok and status == 404):
                continue
            if status in RETRIED and not last:
                busy.append(sent)
            else:
                refused.append((sent[0], told.get("error") or {"reason": f"status {status}"}))
        if refused:
            raise EngineError(
                f"{index} refuses {len(refused)} of {len(part)} documents: "
                + "; ".join(f"{i!r:.80}: {_why(error)}" for i, error in refused[:_TOLD]),
                "nothing is published: correct the documents and load again",
            )
        if not busy:
            return
        part = busy


def _parts(lines: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    part: list[tuple[str, str]] = []
    size = 0
    for item in lines:
        length = len(item[1])
        if part and size + length > MAX_BYTES:
            yield part
            part, size = [], 0
        part.append(item)
        size += length
    if part:
        yield part


def _compact(value: Any) -> str:
    # Escaped: a lone surrogate has no UTF-8, and the length is that in bytes.
    return json.dumps(value, separators=(",", ":"))


def _why(error: Any) -> str:
    """The reason, and the innermost cause."""
    texts = []
    while isinstance(error, dict):
        texts.append(str(error.get("reason", "")))
        error = error.get("caused_by")
    return ": ".join(dict.fromkeys([texts[0], texts[-1]]))[:300] if texts else str(error)[:300]
