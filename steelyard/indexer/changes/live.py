"""Live changes: into the log, then into the published generation, under the write lease.

A change is in the log before it is in the index. Whoever dies in between has lost nothing: the
next writer first applies what the generation lacks. A switch of the alias needs the same lease,
so the generation does not change while one is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from steelyard.errors import EngineError, InputError, SteelyardError
from steelyard.indexer.changes.encoder import ChangeEncoder, EncodedChange, document_of, whole_id
from steelyard.indexer.changes.log import (
    IDS_AN_ENTRY,
    Change,
    DeleteFilter,
    DeleteIds,
    DeleteParents,
    Upsert,
    check_ids,
    encode_change,
    next_moment,
)
from steelyard.indexer.changes.positions import advance, position_of
from steelyard.indexer.changes.replay import replay
from steelyard.indexer.changes.writing import Writer
from steelyard.indexer.lease import LIFE_SECONDS, Lease
from steelyard.plugin.engine import Engine, Generation, generation_names
from steelyard.plugin.records import RecordStore
from steelyard.progress import Progress
from steelyard.types import Document

_GET = 500


@dataclass(frozen=True, slots=True)
class Upserted:
    """What became of documents.

    Attributes:
        generation: name of the one they are in.
        documents: how many whole documents were written.
        rows: how many passages that is.
        refused: reason by id of those that were not.
        sequence: number of the last entry of the log.
        replayed: entries of the log that were applied first.
    """

    generation: str
    documents: int
    rows: int
    refused: Mapping[str, str] = field(default_factory=dict)
    sequence: int = 0
    replayed: int = 0


@dataclass(frozen=True, slots=True)
class Deleted:
    """What was deleted, or would be.

    Attributes:
        generation: name of the one it was in.
        ids: of the whole documents that were there.
        rows: how many passages that is.
        unknown: ids that were given and are not there.
        sequence, replayed: as in ``Upserted``; 0 of a dry run.
    """

    generation: str
    ids: tuple[str, ...]
    rows: int
    unknown: tuple[str, ...] = ()
    sequence: int = 0
    replayed: int = 0


class LiveIndex:
    """The published generation of an alias, and the log of its changes.

    Args:
        engine: of the alias; published generations are searchable when a call returns.
        store: its records.
        encoder: opened when a document is to be written; None: there is none.
        progress: shows a replay.
        wait: seconds to wait for another writer.
        lease_seconds: life of the lease.
    """

    def __init__(
        self,
        engine: Engine,
        store: RecordStore,
        encoder: Callable[[], ChangeEncoder] | None,
        progress: Progress,
        *,
        wait: float | None = 60.0,
        lease_seconds: float = LIFE_SECONDS,
    ) -> None:
        self._engine, self._store, self._progress = engine, store, progress
        self._open_encoder = encoder
        self._opened: ChangeEncoder | None = None
        self._wait, self._lease_seconds = wait, lease_seconds

    def generation(self) -> Generation:
        """The one that is changed.

        Raises:
            EngineError: there is none, or someone else wrote it.
        """
        found = self._engine.resolve()
        if found is None:
            raise EngineError(
                f"{self._engine.alias!r} stands for no generation, so there is nothing to change",
                "make one with 'steelyard index'",
            )
        if found.columns or not generation_names(self._engine.alias).fullmatch(found.name):
            raise EngineError(
                f"{found.name} was adopted: Steelyard only reads it",
                "change it by what wrote it, or index the corpus with 'steelyard index'",
            )
        return found

    def upsert(self, documents: Sequence[Document], *, searchable: bool = True) -> Upserted:
        """Write whole documents, new or in place of older ones; they are encoded before the lease.

        Args:
            documents: some hundred at most, of different ids; their vectors are held in memory.
            searchable: wait until searches see them; or else call ``make_searchable`` at last.

        Raises:
            PackMismatchError: the pack is of other spaces than the generation.
            LeaseHeldError: another writer holds the lease for longer than is waited.
            EngineError: the engine failed. What is in the log is applied by the next command.
        """
        ids = check_ids([document.id for document in documents])
        if len(ids) < len(documents):
            raise InputError("the same id twice among the documents of one change")
        generation = self.generation()
        encoded = self._encode(documents, generation)
        with self._turn() as turn:
            if _differs(turn.generation, generation):
                encoded = self._encode(documents, turn.generation)
            good = [document for document in documents if document.id not in encoded.refused]
            sequence = turn.log([Upsert(document) for document in good])
            with turn.applying(sequence, searchable=searchable):
                refused = turn.writer.put(ids, encoded)
        rows = len(encoded.content)
        return Upserted(
            turn.generation.name, len(ids) - len(refused), rows, refused, sequence, turn.replayed
        )

    def delete(self, ids: Sequence[str], *, dry_run: bool = False) -> Deleted:
        """Delete whole documents, with their passages; a passage's id stands for its document.

        Args:
            ids: unknown ones are no error.
            dry_run: only look.
        """
        given = check_ids(ids)
        if dry_run:
            return _whole(self._looking(), given)
        with self._turn() as turn:
            found = _whole(turn.writer, given)
            # Also what is not here: another generation may have it.
            named = tuple(dict.fromkeys([*found.ids, *found.unknown]))
            parts = [named[i : i + IDS_AN_ENTRY] for i in range(0, len(named), IDS_AN_ENTRY)]
            sequence = turn.log([DeleteIds(part) for part in parts])
            with turn.applying(sequence):
                turn.writer.remove(named)
        return _done(found, sequence, turn.replayed)

    def delete_parents(self, parents: Sequence[str], *, dry_run: bool = False) -> Deleted:
        """Delete everything whose ``parent_id`` is one of these."""
        given = check_ids(parents)
        if dry_run:
            return _found(self._looking(), DeleteParents(given))
        with self._turn() as turn:
            found = _found(turn.writer, DeleteParents(given))
            parts = [given[i : i + IDS_AN_ENTRY] for i in range(0, len(given), IDS_AN_ENTRY)]
            sequence = turn.log([DeleteParents(part) for part in parts])
            with turn.applying(sequence):
                turn.writer.remove_found(parents=given)
        return _done(found, sequence, turn.replayed)

    def delete_matching(self, change: DeleteFilter, *, dry_run: bool = False) -> Deleted:
        """Delete everything that meets a condition now.

        Raises:
            InputError: a condition that cannot be.
        """
        condition = change.filter
        if dry_run:
            return _found(self._looking(), change)
        with self._turn() as turn:
            found = _found(turn.writer, change)
            sequence = turn.log([change])
            with turn.applying(sequence):
                turn.writer.remove_found(filter=condition)
        return _done(found, sequence, turn.replayed)

    def catch_up(self) -> int:
        """Apply what a writer that died has left in the log; how many entries."""
        with self._turn() as turn:
            return turn.replayed

    def make_searchable(self) -> None:
        """Searches see all that was written when this returns."""
        Writer(self._engine, self.generation()).finish()

    def _encode(self, documents: Sequence[Document], generation: Generation) -> EncodedChange:
        return self._encoder().encode(documents, generation)

    def _encoder(self) -> ChangeEncoder:
        if self._open_encoder is None:
            raise EngineError(
                f"the log of {self._engine.alias!r} holds documents that are not in the index "
                "yet, and there is no pack to encode them with",
                "give --pack, or run 'steelyard upsert' first",
            )
        if self._opened is None:
            self._opened = self._open_encoder()
        return self._opened

    def _looking(self) -> Writer:
        return Writer(self._engine, self.generation())

    @contextmanager
    def _turn(self) -> Iterator[_Turn]:
        """Hold the write lease, over a generation that contains the whole log."""
        self.generation()
        lease = Lease.take(
            self._store,
            "write",
            owner=f"live change of {self._engine.alias}",
            seconds=self._lease_seconds,
            wait=self._wait,
        )
        with lease:
            generation = self.generation()
            position = position_of(self._store, generation)
            applied = replay(
                self._store,
                self._engine,
                generation,
                self._encoder,
                position.applied,
                self._progress,
                check=lease.check,
            )
            replayed = applied - position.applied
            if replayed:
                self._progress.say(f"{replayed} changes of the log were not applied yet")
            if replayed or position.version is None:
                lease.check()
                position = advance(self._store, generation, position, applied)
            turn = _Turn(self._engine, self._store, generation, lease, replayed)
            yield turn
            if turn.logged > position.applied:
                lease.check()
                advance(self._store, generation, position, turn.logged)


class _Turn:
    """One writer's turn at the published generation."""

    def __init__(
        self,
        engine: Engine,
        store: RecordStore,
        generation: Generation,
        lease: Lease,
        replayed: int,
    ) -> None:
        self._store, self._lease = store, lease
        self.generation, self.replayed = generation, replayed
        self.writer = Writer(engine, generation, lease.check)
        self.logged = 0

    def log(self, changes: Sequence[Change]) -> int:
        """Make changes durable; the number of the last entry."""
        self._lease.check()
        if not changes:
            return self._store.last_sequence()
        moment = next_moment(self._store)
        self.logged = self._store.append([encode_change(change, moment) for change in changes])
        return self.logged

    @contextmanager
    def applying(self, sequence: int, *, searchable: bool = True) -> Iterator[None]:
        """Apply what was logged."""
        try:
            yield
            if searchable:
                self.writer.finish()
        except SteelyardError as error:
            error.hint = (
                f"the change is entry {sequence} of the log in {self._store.where}, and the next "
                f"'steelyard upsert' or 'delete' applies it{f'; {error.hint}' * bool(error.hint)}"
            )
            raise


def _differs(now: Generation, then: Generation) -> bool:
    """Whether documents that were encoded for one generation are of no use for the other."""
    fields = ("dense_space", "sparse_space", "passages", "dims", "vocabulary_size")
    return any(getattr(now, each) != getattr(then, each) for each in fields)


def _whole(writer: Writer, ids: Sequence[str]) -> Deleted:
    """The documents that are there of some ids, or of passages."""
    split = bool(writer.generation.passages)
    there: dict[str, str] = {}
    for first in range(0, len(ids), _GET):
        found = writer.index.get(ids[first : first + _GET])
        for identifier, stored in found.items():
            parent = stored.document.parent_id
            there[identifier] = whole_id(identifier, parent) if split else identifier
    wanted = list(dict.fromkeys(there.get(identifier, identifier) for identifier in ids))
    rows = writer.passages(wanted) if split else []
    known = {document_of(row) for row in rows} | set(there.values())
    return Deleted(
        writer.generation.name,
        tuple(identifier for identifier in wanted if identifier in known),
        len(set(rows) | set(there)),
        tuple(identifier for identifier in wanted if identifier not in known),
    )


def _found(writer: Writer, change: DeleteParents | DeleteFilter) -> Deleted:
    """The documents that a condition is met by."""
    if isinstance(change, DeleteParents):
        rows = writer.find(parents=change.parents)
    else:
        rows = writer.find(filter=change.filter)
    ids = rows
    if writer.generation.passages:
        ids = list(dict.fromkeys(document_of(row) for row in rows))
    return Deleted(writer.generation.name, tuple(ids), len(rows))


def _done(found: Deleted, sequence: int, replayed: int) -> Deleted:
    return Deleted(found.generation, found.ids, found.rows, found.unknown, sequence, replayed)
