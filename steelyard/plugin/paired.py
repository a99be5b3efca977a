"""Two engines as one: the dense arm in one, the sparse arm, texts and metadata in the other.

The engine of the sparse arm leads: its alias alone says which generation is searched, and the
physical name in the other engine is the same. So a switch-over is one atomic change although two
engines take part. Documents are written to the follower first and deleted from it last: what the
lead lacks does not exist, so a hit of the follower alone is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from steelyard.errors import EngineError
from steelyard.plugin.abilities import (
    AsyncArm,
    AsyncSearchIndex,
    FindsIds,
    Highlights,
    MatchesText,
    OpensAsync,
    RetriesRequests,
    make_searchable,
)
from steelyard.plugin.backoff import Backoff
from steelyard.plugin.engine import (
    DENSE,
    MATCH,
    SPARSE,
    VECTOR_ARMS,
    Arm,
    Engine,
    Generation,
    SearchIndex,
    StoredDocument,
    UpsertReport,
)
from steelyard.plugin.filters import Filter
from steelyard.plugin.records import KeepsRecords
from steelyard.plugin.search.threaded import ThreadedIndex
from steelyard.plugin.text_match import TextMatch
from steelyard.plugin.vocabulary import Vocabulary
from steelyard.types import DenseVectors, EncodedDocuments, SparseVectors

_log = logging.getLogger("steelyard.paired")


class PairedEngine:
    """One alias in two engines.

    Args:
        dense: the follower, which holds the dense vectors and the metadata that filters need.
        sparse: the lead, which holds impacts, texts and metadata.

    Raises:
        EngineError: their aliases differ.
    """

    def __init__(self, dense: Engine, sparse: Engine) -> None:
        if dense.alias != sparse.alias:
            raise EngineError(
                f"the dense engine's alias is {dense.alias!r}, the sparse one's {sparse.alias!r}",
                "use one name in both URLs",
            )
        self._follower, self._lead = dense, sparse
        self._threads = ThreadPoolExecutor(32, thread_name_prefix="steelyard-pair")
        if isinstance(sparse, KeepsRecords):
            self.records = sparse.records

    @property
    def alias(self) -> str:
        """The name that users search."""
        return self._lead.alias

    @property
    def text_match(self) -> TextMatch:
        """Of the lead's ``match`` arm; there is no such attribute where it has none."""
        if not isinstance(self._lead, MatchesText):
            raise AttributeError("text_match")
        return self._lead.text_match

    @text_match.setter
    def text_match(self, value: TextMatch) -> None:
        if isinstance(self._lead, MatchesText):
            self._lead.text_match = value

    def resolve(self) -> Generation | None:
        """The generation that the lead's alias stands for."""
        found = self._lead.resolve()
        return None if found is None else _whole(found)

    def generations(self) -> list[Generation]:
        """All generations, newest first, also those of which one engine has only a part."""
        found = {part.name: part for part in self._follower.generations()}
        found |= {part.name: part for part in self._lead.generations()}
        return [_whole(found[name]) for name in sorted(found, reverse=True)]

    def is_whole(self, generation: Generation) -> bool:
        """Whether both engines have their half."""
        return all(
            any(found.name == generation.name for found in engine.generations())
            for engine in (self._follower, self._lead)
        )

    def create(self, generation: Generation) -> None:
        """Make an empty generation in both, in the follower first."""
        self._follower.create(_part(generation, DENSE))
        self._lead.create(_part(generation, SPARSE))

    def upsert(
        self, generation: Generation, batch: EncodedDocuments, *, report_refused: bool = False
    ) -> UpsertReport:
        """Write whole documents to the follower, then to the lead.

        What the follower refuses is not written to the lead. What the lead refuses leaves both:
        the follower may hold its new half, and a half is no document.
        """
        dense = self._follower.upsert(
            _part(generation, DENSE), batch, report_refused=report_refused
        )
        refused = {one.id for one in dense.refused}
        rows = [i for i, document in enumerate(batch.documents) if document.id not in refused]
        if refused:
            batch = batch.select(rows)
        sparse = self._lead.upsert(_part(generation, SPARSE), batch, report_refused=report_refused)
        if sparse.refused:
            self.delete(generation, [one.id for one in sparse.refused])
        return UpsertReport(sparse.clipped, (*dense.refused, *sparse.refused))

    @property
    def backoff(self) -> Backoff:
        """How requests are tried again: of the lead."""
        if not isinstance(self._lead, RetriesRequests):
            raise AttributeError("backoff")
        return self._lead.backoff

    @backoff.setter
    def backoff(self, value: Backoff) -> None:
        for engine in (self._follower, self._lead):
            if isinstance(engine, RetriesRequests):
                engine.backoff = value

    def delete(self, generation: Generation, ids: Sequence[str]) -> None:
        """Remove documents from the lead, then from the follower."""
        self._lead.delete(_part(generation, SPARSE), ids)
        self._follower.delete(_part(generation, DENSE), ids)

    def seal(self, generation: Generation) -> None:
        """Everything is durable and searchable in both.

        Raises:
            EngineError: the two count different numbers of documents.
        """
        self._follower.seal(_part(generation, DENSE))
        self._lead.seal(_part(generation, SPARSE))
        index = self.open(generation)
        dense, sparse = index.counts()
        if dense != sparse:
            raise EngineError(
                f"{generation.name} has {dense} documents with dense vectors and {sparse} with "
                "impacts",
                "load it again: nothing is published",
            )

    def refresh(self, generation: Generation) -> None:
        """What was written is searchable in both: see ``Refreshes``."""
        make_searchable(self._follower, _part(generation, DENSE))
        make_searchable(self._lead, _part(generation, SPARSE))

    def publish(self, generation: Generation) -> None:
        """Point the lead's alias to it: the commit point. The follower's is for outsiders only."""
        opened = self.open(generation)
        self._lead.publish(_part(generation, SPARSE))
        try:
            self._follower.publish(opened.follower.generation)
        except EngineError as error:
            _log.warning("published, but the dense engine's own alias stays: %s", error)

    def drop(self, generation: Generation) -> None:
        """Remove a generation from the lead, then from the follower."""
        lead = self._lead.resolve()
        if lead is not None and lead.name == generation.name:
            raise EngineError(f"{generation.name} is what {self.alias} stands for, so it stays")
        if any(found.name == generation.name for found in self._lead.generations()):
            self._lead.drop(_part(generation, SPARSE))
        part = next((f for f in self._follower.generations() if f.name == generation.name), None)
        if part is None:
            return
        current = self._follower.resolve()
        if current is not None and current.name == part.name and lead is not None:
            # A publish was killed between the two aliases: the lead's is the one that counts.
            self._follower.publish(_part(_whole(lead), DENSE))
        self._follower.drop(part)

    def open(self, generation: Generation, vocabulary: Vocabulary | None = None) -> PairedIndex:
        """A generation for reading, after comparing what both engines say of it."""
        dense = self._follower.open(_part(generation, DENSE), vocabulary)
        sparse = self._lead.open(_part(generation, SPARSE), vocabulary)
        _check_same(dense.generation, sparse.generation)
        return PairedIndex(_whole(sparse.generation), dense, sparse, self._threads)

    async def open_async(
        self, generation: Generation, vocabulary: Vocabulary | None = None
    ) -> AsyncSearchIndex:
        """As ``open``, each engine by its own asynchronous client where it has one."""
        dense = await self._awaited(self._follower, _part(generation, DENSE), vocabulary)
        sparse = await self._awaited(self._lead, _part(generation, SPARSE), vocabulary)
        _check_same(dense.generation, sparse.generation)
        return AsyncPairedIndex(_whole(sparse.generation), dense, sparse)

    async def close_async(self) -> None:
        """Let go of what this event loop opened."""
        for engine in (self._follower, self._lead):
            if isinstance(engine, OpensAsync):
                await engine.close_async()

    def close(self) -> None:
        """Let go of both engines."""
        self._threads.shutdown(wait=False)
        try:
            self._follower.close()
        finally:
            self._lead.close()

    async def _awaited(
        self, engine: Engine, part: Generation, vocabulary: Vocabulary | None
    ) -> AsyncSearchIndex:
        if isinstance(engine, OpensAsync):
            return await engine.open_async(part, vocabulary)
        opened = await asyncio.to_thread(engine.open, part, vocabulary)
        return ThreadedIndex(opened, self._threads)


class PairedIndex:
    """One generation in two engines, open for reading."""

    lead_arm = SPARSE
    """What the arm of the lead returns exists; of other hits the lead has to be asked."""

    def __init__(
        self,
        generation: Generation,
        dense: SearchIndex,
        sparse: SearchIndex,
        threads: ThreadPoolExecutor,
    ) -> None:
        self.generation, self._threads = generation, threads
        self.follower, self.lead = dense, sparse
        self.dense: Arm[DenseVectors] = dense.dense
        self.sparse: Arm[SparseVectors] = sparse.sparse
        self.match: Arm[Sequence[str]] = sparse.match
        self.arms = _arms(sparse.arms)
        if isinstance(sparse, Highlights):
            self.highlight = sparse.highlight
        if isinstance(sparse, FindsIds):
            self.find = partial(_found, generation, sparse, dense)

    def get(
        self,
        ids: Sequence[str],
        *,
        vectors: bool = False,
        terms: bool = False,
        timeout: float | None = None,
    ) -> Mapping[str, StoredDocument]:
        """Documents that the lead has; their vectors from the follower."""
        if not vectors:
            return self.lead.get(ids, terms=terms, timeout=timeout)
        later = self._threads.submit(self.follower.get, ids, vectors=True, timeout=timeout)
        found = self.lead.get(ids, terms=terms, timeout=timeout)
        return _joined(found, later.result())

    def count(self) -> int:
        """Number of documents of the lead."""
        return self.lead.count()

    def counts(self) -> tuple[int, int]:
        """Number of documents with dense vectors, and with impacts."""
        return self.follower.count(), self.lead.count()

    def export(self) -> EncodedDocuments:
        """Everything that both store; documents that one of them lacks are left out."""
        dense, sparse = self.follower.export(), self.lead.export()
        place = {document.id: row for row, document in enumerate(dense.documents)}
        rows = [row for row, document in enumerate(sparse.documents) if document.id in place]
        documents = [sparse.documents[row] for row in rows]
        vectors = dense.dense[[place[document.id] for document in documents]]
        if not rows:
            vectors = np.zeros((0, self.generation.dims), np.float32)
        return EncodedDocuments(documents, vectors, sparse.sparse.select(rows))


class AsyncPairedIndex:
    """One generation in two engines, awaited."""

    def __init__(
        self, generation: Generation, dense: AsyncSearchIndex, sparse: AsyncSearchIndex
    ) -> None:
        self.generation = generation
        self.lead_arm = SPARSE
        self._follower, self._lead = dense, sparse
        self.dense: AsyncArm[DenseVectors] = dense.dense
        self.sparse: AsyncArm[SparseVectors] = sparse.sparse
        self.match: AsyncArm[Sequence[str]] = sparse.match
        self.arms = _arms(sparse.arms)
        if isinstance(sparse, Highlights):
            self.highlight = sparse.highlight

    async def get(
        self,
        ids: Sequence[str],
        *,
        vectors: bool = False,
        terms: bool = False,
        timeout: float | None = None,
    ) -> Mapping[str, StoredDocument]:
        """See ``PairedIndex.get``."""
        if not vectors:
            return await self._lead.get(ids, terms=terms, timeout=timeout)
        found, dense = await asyncio.gather(
            self._lead.get(ids, terms=terms, timeout=timeout),
            self._follower.get(ids, vectors=True, timeout=timeout),
        )
        return _joined(found, dense)


def _whole(part: Generation) -> Generation:
    return replace(part, arms=VECTOR_ARMS, arms_elsewhere=())


def _part(generation: Generation, arm: str) -> Generation:
    elsewhere = tuple(other for other in VECTOR_ARMS if other != arm)
    return replace(generation, arms=(arm,), arms_elsewhere=elsewhere)


def _arms(lead: tuple[str, ...]) -> tuple[str, ...]:
    return (*VECTOR_ARMS, MATCH) if MATCH in lead else VECTOR_ARMS


def _check_same(dense: Generation, sparse: Generation) -> None:
    """Refuse two halves that were not made together."""
    for what in ("dense_space", "sparse_space", "pack_id", "content", "dims"):
        ours, theirs = getattr(dense, what), getattr(sparse, what)
        if ours != theirs:
            raise EngineError(
                f"{sparse.name}: {what} is {ours} in the dense engine and {theirs} in the sparse "
                "one",
                "they were not made together: index the corpus again",
            )


def _found(
    generation: Generation,
    lead: FindsIds,
    follower: SearchIndex,
    *,
    parents: Sequence[str] | None = None,
    filter: Filter | None = None,
    timeout: float | None = None,
) -> list[str]:
    """Ids by parent and filter: see ``FindsIds``; also of documents that one of the two lacks.

    What a crash left in the follower alone is no search's hit, but is to be deleted with the rest.
    A follower without texts knows the parents of passages only.
    """
    found = set(lead.find(parents=parents, filter=filter, timeout=timeout))
    if isinstance(follower, FindsIds) and (parents is None or generation.passages):
        found |= set(follower.find(parents=parents, filter=filter, timeout=timeout))
    return sorted(found)


def _joined(
    documents: Mapping[str, StoredDocument], vectors: Mapping[str, StoredDocument]
) -> dict[str, StoredDocument]:
    return {
        identifier: replace(document, dense=vectors[identifier].dense)
        if identifier in vectors
        else document
        for identifier, document in documents.items()
    }
