"""Documents read back, as calls without a connection: see ``requests``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelyard.errors import EngineError
from steelyard.plugin.engine import DENSE, SPARSE, Generation, StoredDocument
from steelyard.plugin.opensearch.bodies import Json, match_query
from steelyard.plugin.opensearch.layout import ID, Layout, value_at
from steelyard.plugin.opensearch.refusals import refusal
from steelyard.plugin.opensearch.requests import Request, Steps
from steelyard.plugin.opensearch.searches import Searches, check_complete, hit_id
from steelyard.plugin.opensearch.words import bounded_text
from steelyard.plugin.vocabulary import TermKeys
from steelyard.types import EncodedDocuments, SparseVectors

Highlighted = dict[str, dict[str, list[str]]]

_BATCH = 500
_PAGE_NUMBERS = 500_000
KEEP_ALIVE = "5m"
WHOLE = {"allow_partial_search_results": "false"}

FRAGMENTS = 3
"""Of a text, at most; a title is shown whole."""

FRAGMENT_CHARACTERS = 150
"""About so long is each."""

ANALYSED_CHARACTERS = 1_000_000
"""Of a text, in which words are looked for: ``index.highlight.max_analyzed_offset``."""


def get(
    target: Searches, ids: Sequence[str], *, vectors: bool, terms: bool
) -> Steps[dict[str, StoredDocument]]:
    """Stored documents by id; of an index of ours also those that no search sees yet."""
    generation, layout, found = target.generation, target.layout, {}
    vectors &= DENSE in generation.arms
    terms &= SPARSE in generation.arms
    paths = layout.read_paths(dense=vectors, sparse=terms)
    for first in range(0, len(ids), _BATCH):
        part = list(ids[first : first + _BATCH])
        if layout.adopted:
            sources = yield from _by_search(generation, layout, part, paths)
        else:
            sources = yield from _by_id(generation.name, part, paths)
        for identifier, source in sources.items():
            document = layout.document(identifier, source, generation.fields)
            dense = _vector(source, layout.dense, generation) if vectors else None
            impacts = _impacts(source, layout.sparse, target.keys) if terms else None
            found[identifier] = StoredDocument(document, dense, impacts)
    return found


def highlight(target: Searches, ids: Sequence[str], text: str) -> Steps[Highlighted]:
    """Fragments with the words of a text, by id and field."""
    layout, name = target.layout, target.generation.name
    fields = {
        path: ours
        for path, ours in ((layout.title, "title"), (layout.text, "text"))
        if path in layout.texts
    }
    found: Highlighted = {}
    text = bounded_text(text)
    if not fields or not text.strip():
        return found
    action = f"highlight in {name}"
    shown = {
        path: {"number_of_fragments": 0}
        if ours == "title"
        else {"number_of_fragments": FRAGMENTS, "fragment_size": FRAGMENT_CHARACTERS}
        for path, ours in fields.items()
    }
    words = match_query(text, target.boosts)
    for first in range(0, len(ids), _BATCH):
        part = list(ids[first : first + _BATCH])
        body: Json = {
            "size": len(part),
            "query": {"bool": {"filter": [_of_ids(layout, part)]}},
            "_source": False,
            "track_total_hits": False,
            "highlight": {
                "highlight_query": words,
                "fields": shown,
                "max_analyzer_offset": ANALYSED_CHARACTERS,
            },
        }
        if layout.id is not None:
            body["docvalue_fields"] = [layout.id]
        answer = yield Request(action, "POST", f"/{name}/_search", body, WHOLE)
        check_complete(action, answer)
        for hit in answer["hits"]["hits"]:
            identifier = hit_id(hit, layout.id)
            if identifier is None:
                continue
            found[identifier] = {
                fields[path]: fragments for path, fragments in hit.get("highlight", {}).items()
            }
    return found


def count(name: str) -> Steps[int]:
    """Number of documents that searches see."""
    answer = yield Request(f"count {name}", "GET", f"/{name}/_count")
    if answer["_shards"]["failed"]:
        raise EngineError(f"cannot count {name}: not all shards answered", "try again")
    return int(answer["count"])


def export(target: Searches) -> Steps[EncodedDocuments]:
    """Everything that is stored at one moment, ``sparse`` as impacts, in order of id.

    Vectors of an arm that is not here are zero, its rows empty.
    """
    generation, layout = target.generation, target.layout
    has_dense, has_sparse = DENSE in generation.arms, SPARSE in generation.arms
    documents, dense, sparse = [], [], []
    nothing = (np.zeros(0, np.int32), np.zeros(0, np.float32))
    hits = yield from _everything(target, layout.read_paths(dense=has_dense, sparse=has_sparse))
    for hit in hits:
        source = hit.get("_source") or {}
        identifier = hit_id(hit, layout.id)
        if identifier is None:
            continue
        documents.append(layout.document(identifier, source, generation.fields))
        dense.append(_vector(source, layout.dense, generation) if has_dense else None)
        sparse.append(_impacts(source, layout.sparse, target.keys) if has_sparse else nothing)
    order = sorted(range(len(documents)), key=lambda row: documents[row].id)
    vectors = np.zeros((len(documents), generation.dims), np.float32)
    if has_dense:
        for place, row in enumerate(order):
            vectors[place] = dense[row]
    return EncodedDocuments(
        [documents[row] for row in order],
        vectors,
        SparseVectors.from_rows([sparse[row] for row in order], generation.vocabulary_size),
    )


def _everything(target: Searches, paths: list[str]) -> Steps[list[Json]]:
    """Every hit of one point in time, in pages that may be asked for twice."""
    name, hits = target.generation.name, []
    action = f"export {name}"
    opened = yield Request(
        action,
        "POST",
        f"/{name}/_search/point_in_time",
        parameters={"keep_alive": KEEP_ALIVE, "allow_partial_pit_creation": "false"},
    )
    point = opened["pit_id"]
    body: Json = {
        "size": max(20, min(1000, _PAGE_NUMBERS // max(1, target.generation.dims))),
        "sort": [{"_id" if target.layout.adopted else ID: "asc"}],
        "pit": {"id": point, "keep_alive": KEEP_ALIVE},
        "track_total_hits": False,
        **_read_with(target.layout, paths),
    }
    try:
        while True:
            answer = yield Request(action, "POST", "/_search", body, WHOLE)
            check_complete(action, answer)
            page = answer["hits"]["hits"]
            if not page:
                break
            hits += page
            body = {**body, "search_after": page[-1]["sort"]}
    except EngineError:
        yield from close_point(action, point)
        raise
    yield from close_point(action, point)
    return hits


def close_point(action: str, point: str) -> Steps[None]:
    """Give a point in time back; if that fails it ends by itself, and nothing is lost."""
    with suppress(EngineError):
        path = "/_search/point_in_time"
        yield Request(action, "DELETE", path, {"pit_id": [point]}, missing_ok=True)


def _by_id(name: str, ids: list[str], paths: list[str]) -> Steps[dict[str, Json]]:
    """Sources by ``_id``, of documents that were written without routing."""
    action, found = f"read {name}", {}
    parameters = {"_source_includes": ",".join(paths)}
    answer = yield Request(action, "POST", f"/{name}/_mget", {"ids": ids}, parameters)
    for document in answer["docs"]:
        if "error" in document:
            raise refusal(action, int(document.get("status", 404)), document)
        if document["found"]:
            found[document["_id"]] = document.get("_source") or {}
    return found


def _by_search(
    generation: Generation, layout: Layout, ids: list[str], paths: list[str]
) -> Steps[dict[str, Json]]:
    """Sources by id: all shards are asked, as a document may lie where its routing put it."""
    action = f"read {generation.name}"
    body = {
        "size": len(ids),
        "query": {"bool": {"filter": [_of_ids(layout, ids)]}},
        "track_total_hits": False,
        **_read_with(layout, paths),
    }
    answer = yield Request(action, "POST", f"/{generation.name}/_search", body, WHOLE)
    check_complete(action, answer)
    found = {}
    for hit in answer["hits"]["hits"]:
        identifier = hit_id(hit, layout.id)
        if identifier is not None:
            found[identifier] = hit.get("_source") or {}
    return found


def _read_with(layout: Layout, paths: list[str]) -> Json:
    """The part of a search's body that asks for ids and values.

    An id is read as it is searched: a column such as ``sku.keyword`` is in no source.
    """
    # An empty list of paths would be the whole source, vectors and all.
    body: Json = {"_source": paths or False}
    if layout.id is not None:
        body["docvalue_fields"] = [layout.id]
    return body


def _of_ids(layout: Layout, ids: list[str]) -> Json:
    return {"ids": {"values": ids}} if layout.id is None else {"terms": {layout.id: ids}}


def _vector(source: Json, path: str, generation: Generation) -> NDArray[np.float32]:
    """The stored vector; zero where the document has none."""
    value = value_at(source, path)
    if value is None:
        return np.zeros(generation.dims, np.float32)
    return np.array(value, dtype=np.float32)


def _impacts(
    source: Json, path: str, keys: TermKeys
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Token ids, ascending, and impacts."""
    terms: Mapping[str, Any] = value_at(source, path) or {}
    ids = np.array(keys.ids(terms), dtype=np.int32)
    weights = np.array(list(terms.values()), dtype=np.float32)
    order = np.argsort(ids)
    return ids[order], weights[order]
