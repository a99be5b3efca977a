"""OpenSearch as an engine: an index a generation, the alias moved by one request.

Facts of the engine that shape this code: what is written is searchable after a refresh; an alias
and an index cannot share a name; rank_features stores values with 9 significant bits, in which
integers up to 512 are exact, and only the Lucene engine of k-NN is free of native code.
"""

from __future__ import annotations

import re
from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any
from weakref import WeakKeyDictionary

from steelyard.errors import EngineError
from steelyard.plugin.backoff import Backoff
from steelyard.plugin.batch_check import check_batch
from steelyard.plugin.deadline import Deadline
from steelyard.plugin.engine import Generation, UpsertReport, generation_names
from steelyard.plugin.opensearch.adoption import check_ids, check_sample, survey
from steelyard.plugin.opensearch.async_connection import AsyncConnection
from steelyard.plugin.opensearch.async_index import AsyncOpenSearchIndex
from steelyard.plugin.opensearch.bulk import delete_items, document_items, refusals_error, send
from steelyard.plugin.opensearch.cluster.attach import attach_pipeline, refuse_without_pack
from steelyard.plugin.opensearch.connection import Connection
from steelyard.plugin.opensearch.copies import serve_as, without_copies
from steelyard.plugin.opensearch.finding import refresh
from steelyard.plugin.opensearch.index import OpenSearchIndex
from steelyard.plugin.opensearch.layout import Layout
from steelyard.plugin.opensearch.mapping import (
    Described,
    adopted_meta,
    check_tokens,
    described,
    index_body,
)
from steelyard.plugin.opensearch.records import OpenSearchRecords
from steelyard.plugin.opensearch.requests import Request
from steelyard.plugin.opensearch.searches import Searches
from steelyard.plugin.quantise import quantise
from steelyard.plugin.text_match import TextMatch
from steelyard.plugin.vocabulary import TermKeys, Vocabulary
from steelyard.types import EncodedDocuments

_INDEX_NAME = re.compile(r"(?![-_+.])[^\sA-Z\\/*?\"<>|,#:%]{1,255}")
"""What goes into a path as it is: no pattern, no list, no way up, nothing to escape."""


class OpenSearchEngine:
    """One alias in one cluster.

    Args:
        connection: to the cluster.
        alias: the name that users search.
        vocabulary: the pack's tokenizer: terms are keyed by token strings. Without it neither
            the sparse arm nor writing works.
        text_match: of the match arm; its analyzer is that of generations which are created.
    """

    def __init__(
        self,
        connection: Connection,
        alias: str,
        vocabulary: Vocabulary | None = None,
        text_match: TextMatch | None = None,
    ) -> None:
        self._connection = connection
        self._alias = alias
        self._keys = TermKeys(vocabulary)
        self._names = generation_names(alias)
        self._asynchronous: WeakKeyDictionary[AbstractEventLoop, AsyncConnection] = (
            WeakKeyDictionary()
        )
        self.text_match = text_match or TextMatch()

    @property
    def alias(self) -> str:
        """The name that users search."""
        return self._alias

    def resolve(self) -> Generation | None:
        """The generation that the alias stands for.

        Raises:
            EngineError: the name is an index, or stands for several, or for one of someone else.
        """
        found = self._current()
        return None if found is None else described(found[1], f"index {found[0]}").generation

    def generations(self) -> list[Generation]:
        """All generations of this alias, newest first; last an adopted one it stands for."""
        found = self._mappings(f"{self._alias}_*")
        names = sorted(filter(self._names.fullmatch, found), reverse=True)
        ours = [described(found[name], f"index {name}").generation for name in names]
        current = self.resolve()
        return ours if current is None or current in ours else [*ours, current]

    def create(self, generation: Generation) -> None:
        """Make an empty index, without replicas or refreshes until it is sealed."""
        name = self._own(generation)
        refuse_without_pack(self._connection, self.resolve(), generation)
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        body = index_body(generation, self._keys, now, self.text_match)
        try:
            answer = self._connection.request(f"create {name}", "PUT", f"/{name}", body)
        except EngineError as error:
            if "resource_already_exists" not in error.message:
                raise
            # The first attempt may have arrived although its answer was lost.
            if self._described(name).generation != generation or self.open(generation).count():
                raise
            return
        if not answer.get("shards_acknowledged"):
            raise EngineError(
                f"{name} was created, but its shards did not start",
                "look at the cluster's health, and index again",
            )
        without_copies(self._connection, name)

    def upsert(
        self, generation: Generation, batch: EncodedDocuments, *, report_refused: bool = False
    ) -> UpsertReport:
        """Write whole documents, in requests of 8 MB.

        Raises:
            EngineError: vectors of another size or with NaN, an id that is too long, or a
                document that the engine refuses.
        """
        # A bulk request to an index that was dropped would make a new one, of guessed types.
        found = self._described(self._own(generation))
        check_tokens(found.generation, found.tokens, self._keys)
        check_batch(generation, batch)
        impacts, clipped = quantise(batch.sparse, generation.scale)
        items = document_items(generation, batch, impacts, self._keys)
        refused = send(self._connection, generation.name, items, missing_ok=False)
        if refused and not report_refused:
            raise refusals_error(generation.name, refused, len(batch))
        return UpsertReport(clipped, tuple(refused))

    def delete(self, generation: Generation, ids: Sequence[str]) -> None:
        """Remove documents by id."""
        name = self._own(generation)
        refused = send(self._connection, name, delete_items(ids), missing_ok=True)
        if refused:
            raise refusals_error(name, refused, len(ids))

    @property
    def backoff(self) -> Backoff:
        """How requests are tried again."""
        return self._connection.backoff

    @backoff.setter
    def backoff(self, value: Backoff) -> None:
        self._connection.backoff = value

    def seal(self, generation: Generation) -> None:
        """Refresh; a new generation gets its replicas, and is refreshed from now on.

        Raises:
            EngineError: the cluster does not make the replicas.
        """
        name, current = self._own(generation), self.resolve()
        action, request = f"refresh {name}", self._connection.request
        for path in ("_flush", "_refresh"):
            answer = request(action, "POST", f"/{name}/{path}")
            if answer["_shards"]["failed"]:
                raise EngineError(f"cannot {action}: {answer['_shards']['failed']} shards failed")
        if current is None or current.name != name:
            serve_as(self._connection, name, None if current is None else current.name)

    def refresh(self, generation: Generation) -> None:
        """What was written is searchable when this returns: see ``Refreshes``."""
        self._connection.run(refresh(self._own(generation)))

    def publish(self, generation: Generation) -> None:
        """Point the alias to a generation, in one atomic request."""
        current = self.resolve()
        attach_pipeline(self._connection, current, generation)
        self._point(_index_name(generation), None if current is None else current.name)

    def drop(self, generation: Generation) -> None:
        """Remove a generation.

        Raises:
            EngineError: the alias stands for it, or someone else wrote it.
        """
        name = self._own(generation)
        current = self.resolve()
        if current is not None and current.name == name:
            raise EngineError(f"{name} is what {self._alias} stands for, so it stays")
        self._connection.request(f"drop {name}", "DELETE", f"/{name}", missing_ok=True)

    def open(
        self, generation: Generation, vocabulary: Vocabulary | None = None
    ) -> OpenSearchIndex:
        """A generation for reading.

        Raises:
            EngineError: it is gone, or was made with another tokenizer.
        """
        found = self._described(_index_name(generation))
        return OpenSearchIndex(self._connection, self._searches(found, vocabulary))

    async def open_async(
        self, generation: Generation, vocabulary: Vocabulary | None = None
    ) -> AsyncOpenSearchIndex:
        """A generation for reading from the running event loop: see ``open``."""
        name = _index_name(generation)
        loop = get_running_loop()
        connection = self._asynchronous.get(loop)
        if connection is None:
            connection = AsyncConnection(self._connection.settings, self._connection.backoff)
            self._asynchronous[loop] = connection

        found = _described(name, await connection.send(_mapping_request(name), Deadline()))
        searches = self._searches(found, vocabulary)
        return AsyncOpenSearchIndex(connection, searches, self._connection.version)

    async def close_async(self) -> None:
        """Let go of the running loop's connections."""
        connection = self._asynchronous.pop(get_running_loop(), None)
        if connection is not None:
            await connection.close()

    def adopt(self, generation: Generation) -> Generation:
        """Stamp an index that someone else wrote: see ``Adopts``.

        The stamp is ``_meta.steelyard`` of its mapping; its documents stay as they are, and it
        is neither written to nor dropped. Ids are ``_id`` unless ``columns`` names another.

        Raises:
            EngineError: no such index, no such column, another dimension, vectors that are not of
                length 1, documents without an id, or a name that is an alias; nothing is changed.
        """
        stamped, layout, mappings = self._surveyed(generation)
        name = stamped.name
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        meta = adopted_meta(mappings, stamped, layout, self._keys, now)
        self._connection.request(f"describe {name}", "PUT", f"/{name}/_mapping", {"_meta": meta})
        return stamped

    def examine(self, generation: Generation) -> OpenSearchIndex:
        """The index as ``adopt`` would take it: see ``Adopts``."""
        stamped, layout, _ = self._surveyed(generation)
        searches = Searches(stamped, layout, self._keys, self.text_match)
        return OpenSearchIndex(self._connection, searches)

    def _surveyed(self, generation: Generation) -> tuple[Generation, Layout, dict[str, Any]]:
        """What of someone else's index is what, after a look at its vectors; and its mapping."""
        name = _index_name(generation)
        request = self._connection.request
        answer = request(f"look up {name}", "GET", f"/{name}", missing_ok=True)
        if answer is None:
            raise EngineError(f"there is no index {name!r} in this cluster")
        if name not in answer:
            raise EngineError(
                f"{name!r} is an alias here, of {', '.join(sorted(answer))}",
                "name the index itself",
            )
        if name == self._alias:
            raise EngineError(
                f"{name!r} is an index here, and an alias cannot have its name",
                "choose another name in the engine URL",
            )
        mappings = answer[name].get("mappings") or {}
        if self._names.fullmatch(name):
            raise EngineError(
                f"{name} is a generation of {self._alias!r}", "publish it, or index again"
            )
        current = self._mappings(self._alias)
        if set(current) != {name}:
            self.resolve()  # the alias may be free, or ours; anything else is an error
        stamped, layout = survey(name, mappings, answer[name].get("settings") or {}, generation)
        self._connection.run(check_ids(name, layout))
        if "dense" in stamped.arms:
            self._connection.run(check_sample(name, layout, stamped.dims))
        return stamped, layout, mappings

    def records(self) -> OpenSearchRecords:
        """Leases, positions and the log of this alias, in an index beside it."""
        return OpenSearchRecords(self._connection, self._alias)

    def close(self) -> None:
        """Let go of connections; those of event loops by ``close_async``."""
        self._connection.close()

    def _searches(self, found: Described, vocabulary: Vocabulary | None) -> Searches:
        keys = self._keys if vocabulary is None else TermKeys(vocabulary)
        check_tokens(found.generation, found.tokens, keys)
        return Searches(found.generation, found.layout, keys, self.text_match)

    def _own(self, generation: Generation) -> str:
        """The name of an index that Steelyard wrote: no other is written to or dropped."""
        if not self._names.fullmatch(generation.name):
            raise EngineError(
                f"{generation.name!r} is no generation of {self._alias!r} that Steelyard wrote",
                "those are called <alias>_<utc time>_<hash>; an adopted index is only read",
            )
        return generation.name

    def _point(self, name: str, old: str | None) -> None:
        """Move the alias, off every generation and off what it stood for."""
        ours = f"{self._alias}_*"
        # A pattern without an index is an error.
        leaving = [ours] if self._names.fullmatch(name) or self._mappings(ours) else []
        if old is not None and not self._names.fullmatch(old):
            leaving.append(old)
        actions: list[dict[str, Any]] = [
            {"remove": {"index": index, "alias": self._alias, "must_exist": False}}
            for index in leaving
        ]
        actions.append({"add": {"index": name, "alias": self._alias}})
        action = f"point {self._alias} to {name}"
        self._connection.request(action, "POST", "/_aliases", {"actions": actions})

    def _current(self) -> tuple[str, dict[str, Any]] | None:
        """Name and mapping of the index that the alias stands for."""
        found = self._mappings(self._alias)
        if not found:
            return None
        if self._alias in found:
            raise EngineError(
                f"{self._alias!r} is an index here, not an alias",
                "choose another name in the engine URL",
            )
        if len(found) > 1:
            raise EngineError(
                f"the alias {self._alias!r} stands for {len(found)} indexes: "
                f"{', '.join(sorted(found))}",
                "remove it from all but one",
            )
        return next(iter(found.items()))

    def _described(self, name: str) -> Described:
        return _described(name, self._connection.send(_mapping_request(name), Deadline()))

    def _mappings(self, names: str) -> dict[str, Any]:
        """Mapping by index of what a name, an alias or a pattern stands for."""
        answer = self._connection.send(_mapping_request(names), Deadline())
        return {name: found.get("mappings", {}) for name, found in (answer or {}).items()}


def _index_name(generation: Generation) -> str:
    """A name goes into paths, so nothing that means more than one index may."""
    if not _INDEX_NAME.fullmatch(generation.name) or len(generation.name.encode()) > 255:
        raise EngineError(
            f"{generation.name!r:.300} cannot name an index",
            "lower-case letters, digits, and - _ . inside",
        )
    return generation.name


def _mapping_request(names: str) -> Request:
    return Request(f"look up {names}", "GET", f"/{names}/_mapping", missing_ok=True)


def _described(name: str, answer: Any) -> Described:
    found = (answer or {}).get(name)
    if found is None:
        raise EngineError(f"{name} is not in this cluster", "it was dropped: resolve again")
    return described(found.get("mappings", {}), f"index {name}")
