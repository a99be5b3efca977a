"""Tiny generations of the tiny pack, and the commands that switch them; also as a process.

As a process its arguments are engine URL, pack, command and generation. It prints ``ready``, waits
for a line, and prints ``done`` when the command is.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import urlsplit

from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.indexer.changes.encoder import ChangeEncoder, EncodedChange
from steelyard.indexer.changes.positions import position_of, write_position
from steelyard.indexer.changes.replay import replay
from steelyard.indexer.generations.abort import abandon
from steelyard.indexer.generations.gc import Sweep, sweep
from steelyard.indexer.generations.rollback import Rollback, rollback
from steelyard.indexer.generations.switch import switch
from steelyard.indexer.lease import JOB, WRITE, Lease
from steelyard.indexer.records_place import records_of
from steelyard.plugin.engine import Engine, Generation
from steelyard.plugin.records import RecordStore
from steelyard.plugin.urls import open_engine, split_pair
from steelyard.progress import SilentProgress
from steelyard.types import Document, EncodedDocuments
from tests.servers.opensearch_node import ask

LIFE = 3.0
"""Of leases: a killed process is in the way for so long."""

WORDS = ["heavy", "light", "arm", "balance", "document", "query", "the", "a"]
DOCUMENTS = 40
START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def text(number: int) -> str:
    """Some words, others for each number."""
    return " ".join(WORDS[(number * step + step) % len(WORDS)] for step in range(1, 5))


def encoded(queries: QueryEncoder, documents: Sequence[Document]) -> EncodedDocuments:
    """Documents encoded as if they were queries."""
    vectors = queries.encode_query([document.content for document in documents])
    return EncodedDocuments(documents, vectors.dense, vectors.sparse)


def number_of(generation: Generation) -> int:
    """The number that its name carries."""
    return int(generation.name.rsplit("_", 1)[1], 16)


class Side:
    """One engine with its records, and everything that is done to it."""

    def __init__(self, url: str, pack: Path) -> None:
        self.url, self.pack = url, pack
        self.queries = QueryEncoder.load(pack)
        self.engine: Engine = open_engine(url, vocabulary=self.queries.tokenizer)
        self.store: RecordStore = records_of(self.engine, url)

    def close(self) -> None:
        self.engine.close()

    def generation(self, number: int) -> Generation:
        """Number ``number``; its name says so."""
        metadata = self.queries.metadata
        moment = START + timedelta(seconds=number)
        return Generation(
            f"{self.engine.alias}_{moment:%Y%m%d%H%M%S}_{number:08x}",
            metadata.spaces.dense,
            metadata.spaces.sparse,
            metadata.pack_id,
            f"content{number}",
            self.queries.dims,
            self.queries.vocabulary_size,
            metadata.sparse.scale,
            {"number": "int"},
        )

    def content(self, number: int, count: int = DOCUMENTS) -> EncodedDocuments:
        """What generation ``number`` is loaded with."""
        documents = [
            Document(f"d{i}", text(i), f"number {i}", f"d{i}", {"number": number})
            for i in range(count)
        ]
        return encoded(self.queries, documents)

    def load(self, number: int) -> Generation:
        """Make and seal it; it is not published."""
        generation = self.generation(number)
        self.engine.create(generation)
        self.engine.upsert(generation, self.content(number))
        self.engine.seal(generation)
        return generation

    def encode(self, documents: Sequence[Document], generation: Generation) -> EncodedChange:
        """See ``ChangeEncoder``."""
        del generation
        return EncodedChange(encoded(self.queries, documents))

    def replay(self, generation: Generation, after: int, encodes: bool = True) -> int:
        """Everything in the log after a number."""
        del encodes
        encoder: ChangeEncoder = self
        return replay(
            self.store, self.engine, generation, lambda: encoder, after, SilentProgress()
        )

    def switch(self, generation: Generation, started_at: int = 0) -> None:
        """Publish it, with the log after ``started_at`` replayed."""

        def drain() -> int:
            applied = position_of(self.store, generation).applied
            return self.replay(generation, max(started_at, applied))

        with Lease.take(self.store, JOB, owner="a job", seconds=LIFE, wait=60) as lease:
            switch(
                self.engine, generation, self.store, drain, lease, seconds=LIFE, wait=60,
            )  # fmt: skip

    def change(self, *values: dict[str, object]) -> None:
        """Live changes: logged, applied to the current generation."""
        now = datetime.now(timezone.utc).isoformat()
        with Lease.take(self.store, WRITE, owner="a change", seconds=LIFE, wait=60):
            self.store.append([{**value, "time": now} for value in values])
            current = self.engine.resolve()
            assert current is not None
            after = position_of(self.store, current).applied
            write_position(self.store, current, self.replay(current, after))

    def upsert(self, identifier: str, number: int) -> None:
        document = {"id": identifier, "title": "", "text": text(7), "metadata": {"number": number}}
        self.change({"op": "upsert", "document": document})

    def rollback(self, to: str | None = None, accept_stale: bool = False) -> Rollback:
        return rollback(
            self.engine, self.store, self.replay,
            to=to, accept_stale=accept_stale, seconds=LIFE, wait=60,
        )  # fmt: skip

    def sweep(self, keep: int = 1, grace: float = 0.0) -> Sweep:
        return sweep(self.engine, self.store, keep=keep, grace=grace, wait=True, seconds=LIFE)

    def numbers(self) -> list[int]:
        """Of all generations there are, newest first."""
        return [number_of(one) for one in self.engine.generations()]

    def current(self) -> int:
        """Number of the generation that is searched."""
        found = self.engine.resolve()
        assert found is not None
        return number_of(found)

    def stored(self, generation: Generation) -> dict[str, object]:
        """Number that each document carries."""
        documents = self.engine.open(generation).export().documents
        return {document.id: document.metadata["number"] for document in documents}

    def run(self, command: str, number: int) -> None:
        """A command by name."""
        if command == "switch":
            self.switch(self.generation(number))
        elif command == "rollback":
            self.rollback()
        elif command == "gc":
            self.sweep()
        else:
            abandon(self.engine, self.store, generation=self.generation(number).name, seconds=LIFE)


def named(side: Side, number: int) -> str:
    return side.generation(number).name


def clean(side: Side, node: str) -> None:
    """Remove everything of an alias from real servers, and close."""
    alias = side.engine.alias
    for name in ask(node, "GET", f"/{alias}_*/_alias"):
        ask(node, "DELETE", f"/{name}")
    ask(node, "DELETE", f"/steelyard-records-{alias}?ignore_unavailable=true")
    side.close()
    pair = split_pair(side.url)
    if pair is None:
        return
    from pymilvus import MilvusClient

    client = MilvusClient(f"http://{urlsplit(pair[0]).netloc}", dedicated=True)
    for name in client.list_collections():
        if name.startswith(f"{alias}_"):
            for found in client.list_aliases(name)["aliases"]:
                client.drop_alias(found)
            client.drop_collection(name)
    client.close()


def main(url: str, pack: str, command: str, number: str) -> None:
    side = Side(url, Path(pack))
    print("ready", flush=True)
    sys.stdin.readline()
    side.run(command, int(number))
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
