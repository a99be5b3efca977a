"""Milvus as an engine: a collection a generation, the alias moved by one request.

Facts of the engine that shape this code: a server stores both of two documents that have the same
id in one request, and accepts sparse columns before it knows them; Milvus Lite accepts NaN, and
its file belongs to one process; a sparse row may not be empty; VARCHAR holds 65,535 bytes; a
search sees what was written some seconds ago unless it waits; a collection is searched in memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from steelyard.errors import EngineError
from steelyard.plugin.backoff import Backoff
from steelyard.plugin.batch_check import check_batch
from steelyard.plugin.engine import (
    DENSE,
    SPARSE,
    Generation,
    Refused,
    UpsertReport,
    generation_names,
)
from steelyard.plugin.milvus.adoption import adopted, comparable
from steelyard.plugin.milvus.connection import (
    SPARSE_VERSION,
    Connection,
    server_version,
)
from steelyard.plugin.milvus.errors import BadRowsError
from steelyard.plugin.milvus.filter import ids_expression
from steelyard.plugin.milvus.index import MilvusIndex
from steelyard.plugin.milvus.layout import (
    PROPERTY,
    Description,
    Layout,
    adopted_layout,
    own_layout,
)
from steelyard.plugin.milvus.requests import IDS_A_REQUEST
from steelyard.plugin.milvus.rows import request_rows
from steelyard.plugin.milvus.schema import collection_schema, index_parameters
from steelyard.plugin.quantise import quantise
from steelyard.plugin.vocabulary import Vocabulary
from steelyard.types import EncodedDocuments

LONG_SECONDS = 3600.0
"""Seconds for a flush, and for loading a collection into memory."""

_POISON = 20
"""Documents that may be refused one by one before any is taken."""

_INDEX_STALL = 600.0
"""Seconds after which an index of which no further row gets built is given up."""


class MilvusEngine:
    """One alias in one Milvus, server or Lite.

    Args:
        connection: to it.
        alias: the name that users search.
        lite: it is a file.
    """

    def __init__(self, connection: Connection, alias: str, *, lite: bool) -> None:
        self.connection, self._alias, self._lite = connection, alias, lite
        self._names = generation_names(alias)

    @property
    def alias(self) -> str:
        """The name that users search."""
        return self._alias

    @property
    def where(self) -> str:
        """The server or the file."""
        return str(self.connection.where)

    def resolve(self) -> Generation | None:
        """The generation that the alias stands for.

        Raises:
            EngineError: the name is a collection, or stands for one of someone else.
        """
        if not self.connection.call("read the alias", "has_collection", self._alias):
            return None
        description = self._describe(self._alias, "read the alias")
        if description.name == self._alias:
            raise EngineError(
                f"{self._alias!r} is a collection here, not an alias",
                "choose another name in the engine URL",
            )
        return description.generation()

    def generations(self) -> list[Generation]:
        """All generations of this alias, newest first; last an adopted one it stands for."""
        names = self.connection.call("list the generations", "list_collections")
        found = sorted(filter(self._names.fullmatch, names), reverse=True)
        ours = [self._describe(name, "list the generations").generation() for name in found]
        current = self.resolve()
        return ours if current is None or current in ours else [*ours, current]

    def create(self, generation: Generation) -> None:
        """Make an empty collection; it is not loaded into memory until it is sealed or opened.

        Raises:
            EngineError: it is there already, its name is none of ours, or the server is too old
                for sparse vectors.
        """
        name, call = self._own(generation), self.connection.call
        if SPARSE in generation.arms and not self._lite:
            number = self.connection.said_version
            if server_version(number) < SPARSE_VERSION:
                needed = ".".join(map(str, SPARSE_VERSION))
                raise EngineError(
                    f"Milvus {number} at {self.connection.where} has no sparse vectors, they "
                    f"came in {needed}",
                    "upgrade the server, or keep the sparse arm in OpenSearch: "
                    "dense=milvus://...,sparse=opensearch://...",
                )
        action = f"create {name}"
        if call(action, "has_collection", name):
            raise EngineError(f"there is a collection {name} already", "index again")
        layout, client = own_layout(generation, lite=self._lite), self.connection.client
        call(
            action,
            "create_collection",
            name,
            schema=collection_schema(client, generation, layout),
            properties={PROPERTY: generation.to_json()},
            consistency_level="Bounded",
        )
        try:
            # Not waited for here: ``seal`` waits.
            call(action, "create_index", name, index_parameters(client, layout), sync=False)
        except EngineError:
            call(action, "drop_collection", name)
            raise
        if self._lite:
            call(action, "load_collection", name)

    def upsert(
        self, generation: Generation, batch: EncodedDocuments, *, report_refused: bool = False
    ) -> UpsertReport:
        """Write whole documents, some thousand a request.

        A request that Milvus refuses is halved until the documents at fault are alone: it says
        of a request only that something in it is wrong.

        Raises:
            EngineError: another dimension, a vector that is not finite, an id that is too long,
                or a collection that someone else wrote.
        """
        name = self._own(generation)
        requests, clipped = self.upsert_requests(generation, batch)
        key = own_layout(generation, lite=self._lite).key
        refused: list[Refused] = []
        for rows in requests:
            if report_refused:
                refused += self._upsert_halving(name, rows, key)
            else:
                self.connection.call(f"write to {name}", "upsert", name, rows)
        return UpsertReport(clipped, tuple(refused))

    def _upsert_halving(self, name: str, rows: list[dict[str, Any]], key: str) -> list[Refused]:
        halves, taken = [rows], 0
        refused: list[Refused] = []
        while halves:
            part = halves.pop()
            try:
                self.connection.call(f"write to {name}", "upsert", name, part)
                taken += len(part)
                continue
            except BadRowsError as error:
                if len(part) > 1:
                    halves += [part[len(part) // 2 :], part[: len(part) // 2]]
                    continue
                refused.append(Refused(str(part[0][key]), error.message))
                if len(refused) > _POISON and not taken:
                    raise  # not the documents' fault
        return refused

    @property
    def backoff(self) -> Backoff:
        """How requests are tried again."""
        return self.connection.backoff

    @backoff.setter
    def backoff(self, value: Backoff) -> None:
        self.connection.backoff = value

    def upsert_requests(
        self, generation: Generation, batch: EncodedDocuments
    ) -> tuple[Iterator[list[dict[str, Any]]], int]:
        """The rows of each request, made as they are asked for; how many weights were clipped."""
        layout = own_layout(generation, lite=self._lite)
        check_batch(generation, batch)
        clipped, impacts = 0, batch.sparse
        if layout.sparse:
            impacts, clipped = quantise(batch.sparse, generation.scale)
        return request_rows(generation, layout, batch, impacts), clipped

    def delete(self, generation: Generation, ids: Sequence[str]) -> None:
        """Remove documents by id."""
        name, layout = self._own(generation), own_layout(generation, lite=self._lite)
        for first in range(0, len(ids), IDS_A_REQUEST):
            self.connection.call(
                f"delete documents of {name}",
                "delete",
                name,
                filter=ids_expression(ids[first : first + IDS_A_REQUEST], layout),
            )

    def seal(self, generation: Generation) -> None:
        """Flush, wait until indexes are built, load, and wait until searches see everything."""
        name, call = self._own(generation), self.connection.call
        call(f"flush {name}", "flush", name, attempt_seconds=None if self._lite else LONG_SECONDS)
        if not self._lite:
            self._wait_for_indexes(generation)
        self._loaded(generation).count()

    def refresh(self, generation: Generation) -> None:
        """What was written is searchable when this returns: see ``Refreshes``.

        Nothing is flushed: a count waits until the server's searches see the newest.
        """
        MilvusIndex(self.connection, generation, self._layout(generation)).count()

    def publish(self, generation: Generation) -> None:
        """Point the alias to a generation."""
        current = self.resolve()
        change = "create_alias" if current is None else "alter_alias"
        try:
            self.connection.call(
                f"point {self._alias} to {generation.name}", change, generation.name, self._alias
            )
        except EngineError:
            # The first attempt may have arrived although its answer was lost.
            if self.resolve() != generation:
                raise

    def drop(self, generation: Generation) -> None:
        """Remove a generation, from memory first.

        Raises:
            EngineError: the alias stands for it, or someone else wrote it.
        """
        name = self._own(generation)
        current = self.resolve()
        if current is not None and current.name == name:
            raise EngineError(f"{name} is what {self._alias} stands for, so it stays")
        action = f"drop {name}"
        if self.connection.call(action, "has_collection", name):
            self.connection.call(action, "release_collection", name)
            self.connection.call(action, "drop_collection", name)

    def open(self, generation: Generation, vocabulary: Vocabulary | None = None) -> MilvusIndex:
        """A generation for reading, loaded into memory.

        Raises:
            EngineError: it is gone, or another one is in its place.
        """
        del vocabulary  # terms are numbers here
        found = self._describe(generation.name, f"open {generation.name}").generation()
        if found != generation:
            raise EngineError(
                f"{generation.name} is another build than was asked for (content "
                f"{found.content}, not {generation.content})",
                "open the engine again",
            )
        return self._loaded(generation)

    def close(self) -> None:
        """Let go of connections or the file."""
        self.connection.close()

    def adopt(self, generation: Generation) -> Generation:
        """Stamp an existing collection: see ``Adopts``.

        Its primary key may be VARCHAR or INT64, its metric IP or COSINE. Columns on which
        ``generation.columns`` is silent are those of our names; the dense one is found by itself
        where there is only one column of vectors.
        """
        stamped, _ = self._surveyed(generation)
        self.connection.call(
            f"adopt {stamped.name}",
            "alter_collection_properties",
            stamped.name,
            {PROPERTY: stamped.to_json()},
        )
        return stamped

    def examine(self, generation: Generation) -> MilvusIndex:
        """The collection as ``adopt`` would take it, loaded into memory: see ``Adopts``."""
        stamped, layout = self._surveyed(generation)
        self._load(stamped.name)
        return MilvusIndex(self.connection, stamped, layout)

    def _surveyed(self, generation: Generation) -> tuple[Generation, Layout]:
        """Which column of someone else's collection is what."""
        name = generation.name
        action = f"adopt {name}"
        self.resolve()
        if not self.connection.call(action, "has_collection", name):
            raise EngineError(f"there is no collection {name!r}", "give the name of one")
        description = self._describe(name, action)
        if self._names.fullmatch(name) and PROPERTY in description.properties:
            raise EngineError(f"{name} was written by Steelyard", "there is nothing to adopt")
        stamped = adopted(generation, description)
        layout = adopted_layout(stamped, description, self._dense_index(stamped, action))
        return stamped, layout

    def _load(self, name: str) -> None:
        seconds = None if self._lite else LONG_SECONDS
        self.connection.call(f"load {name}", "load_collection", name, attempt_seconds=seconds)

    def _own(self, generation: Generation) -> str:
        """The name of a collection that Steelyard wrote: no other is written to or dropped."""
        if generation.columns:
            raise EngineError(
                f"{generation.name} was adopted: Steelyard only reads it",
                "change it by what wrote it, or index the corpus with 'steelyard index'",
            )
        if not self._names.fullmatch(generation.name):
            raise EngineError(
                f"{generation.name!r} is no generation of {self._alias!r} that Steelyard wrote",
                "those are called <alias>_<utc time>_<hash>",
            )
        return generation.name

    def _loaded(self, generation: Generation) -> MilvusIndex:
        self._load(generation.name)
        return MilvusIndex(self.connection, generation, self._layout(generation))

    def _layout(self, generation: Generation) -> Layout:
        if not generation.columns:
            return own_layout(generation, lite=self._lite)
        action = f"open {generation.name}"
        description = self._describe(generation.name, action)
        return adopted_layout(generation, description, self._dense_index(generation, action))

    def _describe(self, name: str, action: str) -> Description:
        return Description.of(self.connection.call(action, "describe_collection", name))

    def _dense_index(self, generation: Generation, action: str) -> dict[str, Any]:
        name, column = generation.name, generation.columns[DENSE]
        names = self.connection.call(action, "list_indexes", name, column)
        found = [self.connection.call(action, "describe_index", name, each) for each in names[:1]]
        return comparable(generation, found)

    def _wait_for_indexes(self, generation: Generation) -> None:
        name, built, moved = generation.name, -1, time.monotonic()
        action = f"build the indexes of {name}"
        while True:
            pending = 0
            for index in self.connection.call(action, "list_indexes", name):
                found = self.connection.call(action, "describe_index", name, index)
                if found.get("state") == "Failed":
                    reason = found.get("index_state_fail_reason") or "no reason given"
                    raise EngineError(f"Milvus could not {action}: {reason}")
                rows = int(found["total_rows"]) - int(found["indexed_rows"])
                waiting = found.get("state") != "Finished"
                pending += max(rows, int(found["pending_index_rows"]), int(waiting))
            if not pending:
                return
            if pending != built:
                built, moved = pending, time.monotonic()
            elif time.monotonic() - moved > _INDEX_STALL:
                raise EngineError(
                    f"Milvus does not {action}: {pending:,} rows wait since {_INDEX_STALL:g} s",
                    "look at the log of its index node",
                )
            time.sleep(0.2)
