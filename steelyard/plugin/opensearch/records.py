"""Records and log of one alias in OpenSearch, in a small index of one shard beside the alias.

A record is changed by ``if_seq_no`` and ``if_primary_term``. The log is written in pieces of one
or more entries: the id of a piece is the number of its first entry, and it is only ever created,
so that two writers can neither replace each other's entries nor mix them. What is written carries
a token, by which a write is recognised that arrived although its answer was lost.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from steelyard.errors import EngineError
from steelyard.plugin.opensearch.connection import Connection
from steelyard.plugin.records import ConflictError, LogEntry, Record

PREFIX = "steelyard-records-"
"""Before the alias, in the index's name; no alias has a hyphen."""

PIECE_BYTES = 4_000_000
"""Of the entries in one piece; a single larger entry goes alone."""

_PIECE_ENTRIES = 1000
_PIECES_A_REQUEST = 8
_MOST_KEYS = 10_000
_ATTEMPTS = 20
_TRIMMED = "log"
"""The document that says up to where the log was trimmed."""

_STORED = {"type": "object", "enabled": False}
_BODY = {
    "settings": {
        "index": {"number_of_shards": 1, "auto_expand_replicas": "0-1", "hidden": True},
    },
    "mappings": {
        "dynamic": "strict",
        "properties": {
            "kind": {"type": "keyword"},
            "key": {"type": "keyword"},
            "first": {"type": "long"},
            "last": {"type": "long"},
            "token": _STORED,
            "value": _STORED,
        },
    },
}


class OpenSearchRecords:
    """What is kept beside one alias: see ``RecordStore``.

    Args:
        connection: to the cluster.
        alias: whose records.
    """

    shared = True

    def __init__(self, connection: Connection, alias: str) -> None:
        self._connection, self._index = connection, PREFIX + alias
        self._made = False

    @property
    def where(self) -> str:
        """Server and index."""
        return f"{self._connection.settings.where}/{self._index}"

    def read(self, key: str) -> Record | None:
        """A record as it is now."""
        found = self._get(_record_id(key))
        return None if found is None else Record(json.loads(found["value"]), found["version"])

    def write(self, key: str, value: Mapping[str, Any], *, expected: str | None) -> Record:
        """Write a record if nobody else has: see ``RecordStore``."""
        source = {"kind": "record", "key": key, "value": json.dumps(dict(value))}
        version = self._put(f"write the record {key}", _record_id(key), source, expected)
        return Record(json.loads(source["value"]), version)

    def remove(self, key: str, *, expected: str) -> None:
        """Remove a record: see ``RecordStore``."""
        action = f"remove the record {key}"
        answer = self._connection.request(
            action,
            "DELETE",
            f"/{self._index}/_doc/{_record_id(key)}",
            parameters=_if_version(expected),
            missing_ok=True,
        )
        if answer is None:
            raise ConflictError(f"cannot {action}: it is gone")

    def keys(self) -> list[str]:
        """Keys of all records, ascending."""
        hits = self._search({"term": {"kind": "record"}}, "key", _MOST_KEYS, ["key"])
        return [hit["key"] for hit in hits]

    def append(self, values: Sequence[Mapping[str, Any]]) -> int:
        """Add entries, behind whatever is there: see ``RecordStore``."""
        last = self.last_sequence()
        for texts in _pieces(values):
            last = self._append_piece(texts, last)
        return last

    def entries(self, after: int) -> Iterator[LogEntry]:
        """Entries with a sequence number greater than ``after``, ascending."""
        after = max(after, self._trimmed())
        while True:
            query = {"range": {"last": {"gt": after}}}
            pieces = self._search(query, "last", _PIECES_A_REQUEST)
            if not pieces:
                return
            for piece in pieces:
                for sequence, value in enumerate(json.loads(piece["value"]), piece["first"]):
                    if sequence > after:
                        yield LogEntry(sequence, value)
                after = piece["last"]

    def last_sequence(self) -> int:
        """Number of the newest entry, also when it was trimmed."""
        newest = self._search({"range": {"last": {"gt": 0}}}, "-last", 1, ["last"])
        return max(self._trimmed(), *(int(piece["last"]) for piece in newest), 0)

    def first_sequence(self) -> int:
        """Number of the oldest entry that is kept."""
        return self._trimmed() + 1

    def trim(self, through: int) -> int:
        """Forget entries up to and with this number; how many."""
        through = min(through, self.last_sequence())
        while True:
            found = self._get(_TRIMMED)
            before = 0 if found is None else int(found["value"])
            if through > before:
                version = None if found is None else found["version"]
                source = {"kind": "log", "value": str(through)}
                try:
                    self._put("trim the log", _TRIMMED, source, version)
                except ConflictError:
                    continue  # someone else trims too
            break
        # A piece that is kept in part stays whole; nobody reads its first entries any more.
        self._connection.request(
            "trim the log",
            "POST",
            f"/{self._index}/_delete_by_query",
            {"query": {"range": {"last": {"lte": max(through, before), "gt": 0}}}},
            parameters={"conflicts": "proceed", "refresh": "true"},
            missing_ok=True,
        )
        return max(0, through - before)

    def _append_piece(self, texts: list[str], last: int) -> int:
        """Write one piece behind the last entry; the number of its own last."""
        for _ in range(_ATTEMPTS):
            first, end = last + 1, last + len(texts)
            source = {"kind": "piece", "first": first, "last": end}
            source["value"] = f"[{','.join(texts)}]"
            try:
                self._put("append to the log", f"piece-{first:020}", source, None)
            except ConflictError:
                last = self.last_sequence()
                continue
            return end
        raise ConflictError(
            f"cannot append to the log in {self.where}: others were faster {_ATTEMPTS} times",
            "one writer at a time: take the lease",
        )

    def _trimmed(self) -> int:
        found = self._get(_TRIMMED)
        return 0 if found is None else int(found["value"])

    def _get(self, identifier: str) -> dict[str, Any] | None:
        """A document as it is now, with its version; not by a search, which sees it later."""
        answer = self._connection.request(
            f"read {identifier} of {self._index}",
            "GET",
            f"/{self._index}/_doc/{identifier}",
            parameters={"preference": "_primary"},
            missing_ok=True,
        )
        if answer is None or not answer.get("found"):
            return None
        return {**answer["_source"], "version": _version(answer)}

    def _put(
        self, action: str, identifier: str, source: Mapping[str, Any], expected: str | None
    ) -> str:
        """Write a document if it has the version expected; its new version."""
        self._make()
        token = uuid.uuid4().hex
        parameters = {"op_type": "create"} if expected is None else _if_version(expected)
        path = f"/{self._index}/_doc/{identifier}"
        body = {**source, "token": token}
        try:
            answer = self._connection.request(action, "PUT", path, body, parameters=parameters)
        except ConflictError as error:
            # The first attempt may have arrived although its answer was lost.
            found = self._get(identifier)
            if found is None or found["token"] != token:
                raise ConflictError(
                    f"cannot {action} in {self.where}: someone else changed it"
                ) from error
            return str(found["version"])
        return _version(answer)

    def _search(
        self, query: dict[str, Any], order: str, size: int, fields: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Documents as they are now, by a field; ``-`` before it is descending."""
        action = f"read {self._index}"
        answer = self._connection.request(
            action, "POST", f"/{self._index}/_refresh", missing_ok=True
        )
        if answer is None:
            return []
        direction = "desc" if order.startswith("-") else "asc"
        body: dict[str, Any] = {"query": query, "size": size}
        body["sort"] = [{order.removeprefix("-"): {"order": direction}}]
        if fields:
            body["_source"] = list(fields)
        answer = self._connection.request(
            action,
            "POST",
            f"/{self._index}/_search",
            body,
            parameters={"preference": "_primary"},
            missing_ok=True,
        )
        if answer is None:
            return []
        if answer["_shards"]["failed"]:
            raise EngineError(f"cannot {action}: its shard does not answer")
        return [hit["_source"] for hit in answer["hits"]["hits"]]

    def _make(self) -> None:
        """The index, if it is not there: a write would make one of guessed types."""
        if self._made:
            return
        request, action = self._connection.request, f"create {self._index}"
        if request(action, "GET", f"/{self._index}/_mapping", missing_ok=True) is None:
            try:
                request(action, "PUT", f"/{self._index}", _BODY)
            except EngineError as error:
                if "resource_already_exists" not in error.message:
                    raise
        self._made = True


def _pieces(values: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """The entries of each piece as JSON."""
    piece: list[str] = []
    size = 0
    for value in values:
        text = json.dumps(dict(value))
        if piece and (size + len(text) > PIECE_BYTES or len(piece) >= _PIECE_ENTRIES):
            yield piece
            piece, size = [], 0
        piece.append(text)
        size += len(text)
    if piece:
        yield piece


def _record_id(key: str) -> str:
    return f"record-{key}"


def _version(answer: Mapping[str, Any]) -> str:
    return f"{answer['_seq_no']}.{answer['_primary_term']}"


def _if_version(expected: str) -> dict[str, str]:
    sequence, _, term = expected.partition(".")
    return {"if_seq_no": sequence, "if_primary_term": term}
