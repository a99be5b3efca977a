"""What the log of live changes holds, one entry a change of whole documents.

An entry says what was asked for, not what became of it in one generation: documents as they were
given and not their passages or vectors, conditions and not what met them. So it can be applied to
a generation of another model, or that is split otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, TypeAlias

from steelyard.errors import EngineError, InputError
from steelyard.plugin.filter_json import parse_filter
from steelyard.plugin.filters import Filter
from steelyard.plugin.records import LogEntry, RecordStore
from steelyard.types import MAX_ID_BYTES, Document

IDS_AN_ENTRY = 1000
"""Ids of one entry: a longer list is several."""


@dataclass(frozen=True, slots=True)
class Upsert:
    """A whole document, new or in place of an older one with all its passages."""

    document: Document


@dataclass(frozen=True, slots=True)
class DeleteIds:
    """Whole documents by id, with their passages."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeleteParents:
    """Everything whose ``parent_id`` is one of these."""

    parents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeleteFilter:
    """Everything that meets a condition at that moment of the log.

    Attributes:
        condition: as JSON, see ``filter_json``.
    """

    condition: Mapping[str, Any] = field(hash=False)

    @property
    def filter(self) -> Filter:
        """The condition itself."""
        return parse_filter(json.dumps(self.condition))


Change: TypeAlias = Upsert | DeleteIds | DeleteParents | DeleteFilter


def encode_change(change: Change, moment: str) -> dict[str, Any]:
    """The value of a log entry.

    Args:
        change: what.
        moment: when, ISO 8601 in UTC.
    """
    if isinstance(change, Upsert):
        document = change.document
        value: dict[str, Any] = {
            "id": document.id,
            "title": document.title,
            "text": document.text,
            "metadata": dict(document.metadata),
        }
        if document.parent_id not in ("", document.id):
            value["parent_id"] = document.parent_id
        return {"op": "upsert", "document": value, "time": moment}
    what: dict[str, Any]
    if isinstance(change, DeleteIds):
        what = {"ids": list(change.ids)}
    elif isinstance(change, DeleteParents):
        what = {"parents": list(change.parents)}
    else:
        what = {"filter": dict(change.condition)}
    return {"op": "delete", **what, "time": moment}


def decode_change(entry: LogEntry) -> Change:
    """What an entry says.

    Raises:
        EngineError: it is none that this version knows.
    """
    value = entry.value
    try:
        if value["op"] == "upsert":
            return Upsert(_document(value["document"]))
        if value["op"] == "delete":
            if "ids" in value:
                return DeleteIds(_strings(value["ids"]))
            if "parents" in value:
                return DeleteParents(_strings(value["parents"]))
            change = DeleteFilter(dict(value["filter"]))
            if change.filter:
                return change
        raise ValueError(f"op {value['op']!r:.40}")
    except (KeyError, TypeError, ValueError, InputError) as error:
        raise EngineError(
            f"entry {entry.sequence} of the log of live changes cannot be read: {error}",
            "upgrade steelyard: a newer version wrote it",
        ) from error


def check_ids(ids: Sequence[str]) -> tuple[str, ...]:
    """Ids that a document could have, each once, in order.

    Raises:
        InputError: one that no document can have.
    """
    for identifier in ids:
        try:
            size = len(identifier.encode())
        except UnicodeEncodeError:
            raise InputError(f"the id {identifier!r:.80} is not UTF-8") from None
        if not 0 < size <= MAX_ID_BYTES or "\0" in identifier:
            raise InputError(
                f"the id {identifier!r:.80} has {size} bytes",
                f"ids have 1 to {MAX_ID_BYTES} bytes, none of them NUL",
            )
    return tuple(dict.fromkeys(ids))


def entry_time(entry: LogEntry) -> datetime:
    """When it was written."""
    moment = datetime.fromisoformat(str(entry.value.get("time", "")))
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def next_moment(store: RecordStore) -> str:
    """Now, but not before the newest entry: clocks of several machines differ, the order holds."""
    now = datetime.now(timezone.utc)
    last = store.last_sequence()
    for entry in store.entries(last - 1) if last else ():
        now = max(now, entry_time(entry))
    return now.isoformat(timespec="microseconds")


def sequence_at(store: RecordStore, moment: datetime) -> int:
    """Number of the last entry that was written no later than a moment.

    The log holds what a corpus of that moment lacks from the next entry on.

    Args:
        store: of the alias.
        moment: with a time zone.
    """
    found = store.first_sequence() - 1
    for entry in store.entries(found):
        if entry_time(entry) > moment:
            return found
        found = entry.sequence
    return found


def _document(value: Mapping[str, Any]) -> Document:
    texts = [value["id"], value["text"], value.get("title", ""), value.get("parent_id", "")]
    if not all(isinstance(text, str) for text in texts) or not texts[0]:
        raise ValueError("a document without an id or texts")
    identifier, text, title, parent = texts
    return Document(identifier, text, title, parent or identifier, dict(value.get("metadata", {})))


def _strings(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("ids that are no strings")
    return tuple(values)
