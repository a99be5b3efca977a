"""Documents to bulk requests; each item's error is told, and busy items are sent again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from steelyard.errors import EngineError
from steelyard.plugin import engine as arms
from steelyard.plugin.engine import Generation, Refused
from steelyard.plugin.opensearch.connection import Connection
from steelyard.plugin.opensearch.json_text import dumps
from steelyard.plugin.opensearch.layout import DENSE, ID, METADATA, PARENT, SPARSE, TEXT, TITLE
from steelyard.plugin.opensearch.refusals import TooLargeError, refusal
from steelyard.plugin.opensearch.requests import RETRIED
from steelyard.plugin.vocabulary import TermKeys
from steelyard.types import EncodedDocuments, SparseVectors

Item = tuple[str, bytes]
"""An id, and its lines of a bulk request."""

MAX_BYTES = 8_000_000
"""Of one request; a single larger document goes alone."""

_TOLD = 3

_POISON = frozenset({400, 413})
"""Statuses of an item that is at fault itself."""


def document_items(
    generation: Generation, batch: EncodedDocuments, impacts: SparseVectors, keys: TermKeys
) -> Iterator[Item]:
    """Each document's id and its two lines of a bulk request."""
    has_dense, has_sparse = arms.DENSE in generation.arms, arms.SPARSE in generation.arms
    weights = impacts.weights.astype(np.int64).tolist()
    ids, ends = impacts.ids.tolist(), impacts.indptr.tolist()
    dense = np.ascontiguousarray(batch.dense, dtype=np.float32)
    for row, document in enumerate(batch.documents):
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
        }
        if has_dense:
            source[DENSE] = dense[row]
        if has_sparse:
            span = slice(ends[row], ends[row + 1])
            source[SPARSE] = dict(zip(keys.keys(ids[span]), weights[span], strict=True))
        action = {"index": {"_id": document.id}}
        yield document.id, b"%b\n%b\n" % (dumps(action), dumps(source))


def delete_items(ids: Sequence[str]) -> Iterator[Item]:
    """Each id and its line of a bulk request."""
    for identifier in ids:
        yield identifier, dumps({"delete": {"_id": identifier}}) + b"\n"


def send(
    connection: Connection, index: str, items: Iterable[Item], *, missing_ok: bool
) -> list[Refused]:
    """Send items in requests of about ``MAX_BYTES``; the next is made while one is on its way.

    Args:
        connection, index: where to.
        items: what.
        missing_ok: a document that is not there is no error (deletes).

    Returns:
        Items that the server refuses, with its reasons; all others are acknowledged.

    Raises:
        EngineError: the server fails, is too busy for too long, or the index is gone.
    """
    refused: list[Refused] = []
    parts = requests_of(items)
    with ThreadPoolExecutor(1, thread_name_prefix="steelyard-bulk") as maker:
        coming = maker.submit(next, parts, None)
        while (part := coming.result()) is not None:
            coming = maker.submit(next, parts, None)
            refused += _send_part(connection, index, part, missing_ok)
    return refused


def refusals_error(index: str, refused: Sequence[Refused], total: int) -> EngineError:
    """Of a caller that wants all documents or none."""
    return EngineError(
        f"{index} refuses {len(refused)} of {total} documents: "
        + "; ".join(f"{one.id!r:.80}: {one.reason}" for one in refused[:_TOLD]),
        "nothing is published: correct the documents and load again",
    )


def _send_part(
    connection: Connection, index: str, part: list[Item], missing_ok: bool
) -> list[Refused]:
    refused: list[Refused] = []
    for last in connection.backoff:
        try:
            answer = connection.request(
                f"write to {index}",
                "POST",
                f"/{index}/_bulk",
                b"".join(lines for _, lines in part),
                parameters={"filter_path": "errors,items.*.status,items.*.error"},
            )
        except TooLargeError as error:
            # A proxy with a lower limit than OpenSearch's own.
            if len(part) == 1:
                return [*refused, Refused(part[0][0], error.message)]
            half = len(part) // 2
            refused += _send_part(connection, index, part[:half], missing_ok)
            return refused + _send_part(connection, index, part[half:], missing_ok)
        busy, more = _judged(index, part, answer, missing_ok)
        refused += more
        if not busy:
            return refused
        if last:
            raise EngineError(
                f"{index} is too busy to take {len(busy)} of {len(part)} documents: "
                f"{_why(busy[0][1])}",
                "the cluster is overloaded: nothing is published, load again later",
            )
        part = [sent for sent, _ in busy]
    raise AssertionError("Backoff.attempts is at least 1")


def _judged(
    index: str, part: list[Item], answer: Any, missing_ok: bool
) -> tuple[list[tuple[Item, Any]], list[Refused]]:
    """Items to send again, with the errors; and those that are refused."""
    items = answer.get("items", [])
    if len(items) != len(part):
        raise EngineError(f"{len(part)} items sent to {index}, {len(items)} answered")
    busy, refused = [], []
    for sent, item in zip(part, items, strict=True):
        (told,) = item.values()
        status = int(told["status"])
        error = told.get("error")
        # A 404 with an error is not about the document: the index itself is gone.
        if status < 300 or (missing_ok and status == 404 and not error):
            continue
        if isinstance(error, dict) and error.get("type") == "index_not_found_exception":
            raise EngineError(
                f"{index} is not in this cluster, so nothing can be written to it",
                "it was dropped: resolve again",
            )
        if status in RETRIED:
            busy.append((sent, error))
        elif status in _POISON:
            refused.append(Refused(sent[0], _why(error or {"reason": f"status {status}"})))
        else:
            # A block, a login, a broken shard: not the document's fault.
            raise refusal(f"write to {index}", status, {"error": error or {}})
    return busy, refused


def requests_of(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The items of each request, about ``MAX_BYTES`` together."""
    part: list[Item] = []
    size = 0
    for item in items:
        length = len(item[1])
        if part and size + length > MAX_BYTES:
            yield part
            part, size = [], 0
        part.append(item)
        size += length
    if part:
        yield part


def _why(error: Any) -> str:
    """The reason, and the innermost cause."""
    texts = []
    while isinstance(error, dict):
        texts.append(str(error.get("reason", "")))
        error = error.get("caused_by")
    return ": ".join(dict.fromkeys([texts[0], texts[-1]]))[:300] if texts else str(error)[:300]
