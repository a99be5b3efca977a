"""Corpus to shards: read, validate, encode by length, write, journal.

A shard holds a fixed number of documents in corpus order and a batch never crosses a shard, so a
job that was killed continues to byte-identical shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from steelyard.encoders.documents.batching import BATCH_TOKENS
from steelyard.encoders.documents.protocol import DocumentEncoder
from steelyard.encoders.folder_lock import locked_folder
from steelyard.encoders.pack.files import sha256_of
from steelyard.errors import InputError, SteelyardError
from steelyard.indexer.encoding.finished import FinishedShards
from steelyard.indexer.encoding.group import EncodedGroup
from steelyard.indexer.encoding.groups import Place, ReadGroup, read_groups
from steelyard.indexer.encoding.in_order import LocalEncoder, PortionEncoder
from steelyard.indexer.encoding.manifest import (
    MANIFEST,
    REJECTED,
    DamagedShardError,
    EncodingPlan,
    Journal,
    Manifest,
    RejectedDocument,
    ShardEntry,
    check_shard,
    has_size,
    read_manifest,
    shard_name,
    write_manifest,
)
from steelyard.indexer.encoding.rejected import RejectedFile, check_rejected
from steelyard.indexer.encoding.shards import write_shard
from steelyard.indexer.encoding.storage import storing, sync_folder
from steelyard.indexer.flow import Channel, Flow
from steelyard.indexer.reading.corpus import Corpus
from steelyard.indexer.reading.passages import Splitter
from steelyard.indexer.signals import stop_signals
from steelyard.progress import Progress
from steelyard.types import EncodedDocuments

SHARD_DOCUMENTS = 2048

STOP_SECONDS = 60.0
"""That stages have to end once the job is stopped; what is on disk can be continued anyway."""


def plan_encoding(
    corpus: Corpus,
    *,
    dense_space: str,
    sparse_space: str,
    vocabulary_size: int,
    dims: int,
    precision: str,
    fields: dict[str, str] | None = None,
    shard_documents: int = SHARD_DOCUMENTS,
    batch_tokens: int = BATCH_TOKENS,
    passages: str = "",
) -> EncodingPlan:
    """Look over a corpus and fix what its shards will hold."""
    survey = corpus.survey()
    return EncodingPlan(
        corpus_sha256=survey.sha256,
        corpus_lines=survey.records,
        dense_space=dense_space,
        sparse_space=sparse_space,
        vocabulary_size=vocabulary_size,
        dims=dims,
        precision=precision,
        shard_documents=shard_documents,
        batch_tokens=batch_tokens,
        fields=fields or {},
        passages=passages,
    )


def encode_corpus(
    corpus: Corpus,
    plan: EncodingPlan,
    open_encoder: Callable[[], DocumentEncoder],
    folder: Path,
    progress: Progress,
    *,
    max_rejected: int | None = None,
    split: Splitter | None = None,
    encoder: PortionEncoder | None = None,
) -> Manifest:
    """Encode a corpus into a folder of shards; finished shards are used again.

    Args:
        corpus: what to read.
        plan: from ``plan_encoding``.
        open_encoder: called only when there is something to encode.
        folder: where the shards go; one job at a time.
        progress: shows the documents done.
        max_rejected: stop when more lines than this are no documents; None never stops.
        split: a document as its passages.
        encoder: where to encode; None: here, with ``open_encoder``.

    Raises:
        InputError: the folder belongs to another plan or is in use, or too much was rejected.
        StorageError: the folder cannot be written.
        InterruptedJobError: by Ctrl-C or SIGTERM; the same call goes on from there.
    """
    job = Encoding(corpus, plan, open_encoder, folder, progress, max_rejected, split, encoder)
    with ExitStack() as held:
        with storing(folder):
            held.enter_context(locked_folder(folder))
        progress.fact("shards", str(folder))
        for entry in finished_shards(folder, plan):
            try:
                check_shard(folder, entry)
            except DamagedShardError:
                forget_shard(folder, entry)
        signals, flow = held.enter_context(stop_signals()), Flow()
        shards = FinishedShards(flow)
        job.start(flow, shards)
        flow.join(signals.wanted, STOP_SECONDS)
    if shards.manifest is None:
        raise SteelyardError("the encoding ended early", "this is a bug: please report it")
    return shards.manifest


def finished_shards(folder: Path, plan: EncodingPlan) -> list[ShardEntry]:
    """What a folder holds of a plan already.

    Raises:
        InputError: it holds shards of another plan.
    """
    return Journal(folder, plan).entries


def forget_shard(folder: Path, entry: ShardEntry) -> None:
    """Remove a damaged shard: the next encoding of this folder makes it again, and no other."""
    with storing(folder):
        (folder / MANIFEST).unlink(missing_ok=True)
        (folder / entry.name).unlink(missing_ok=True)


@dataclass(slots=True)
class Encoding:
    """One pass over a corpus: what ``encode_corpus`` does, as stages of a flow.

    The caller holds the folder's lock.
    """

    corpus: Corpus
    plan: EncodingPlan
    open_encoder: Callable[[], DocumentEncoder]
    folder: Path
    progress: Progress
    max_rejected: int | None = None
    split: Splitter | None = None
    encoder: PortionEncoder | None = None
    cut: bool = field(default=False, init=False)
    modified: datetime = field(init=False)

    def start(self, flow: Flow, shards: FinishedShards) -> None:
        """Start the stages; ``shards`` is told of every shard, in order.

        Raises:
            InputError: the folder belongs to another plan, or too much was rejected.
        """
        self.cut = False  # an earlier pass may have been stopped by a damaged shard
        self.modified = self.corpus.modified()
        complete = read_manifest(self.folder)
        if (
            complete is not None
            and complete.plan == self.plan
            and all(has_size(self.folder, entry) for entry in complete.shards)
        ):
            self.progress.say(f"{complete.encoded:,} documents already encoded in {self.folder}")
            self._count_finished(complete)
            check_rejected(complete.rejected, self.max_rejected, self.folder)
            shards.complete(complete, complete.shards)
            return
        journal = Journal(self.folder, self.plan)
        read: Channel[ReadGroup] = Channel(flow)
        encoded: Channel[_Encoded] = Channel(flow)
        usable = {n for n, entry in journal.finished.items() if has_size(self.folder, entry)}
        flow.start("read", lambda: self._read(flow, read, journal, usable))
        flow.start("encode", lambda: self._encode(flow, read, encoded))
        flow.start("write", lambda: self._write(encoded, journal, shards))

    def _read(
        self, flow: Flow, read: Channel[ReadGroup], journal: Journal, usable: set[int]
    ) -> None:
        rejected = 0
        for group in read_groups(self.corpus, self.plan, self.split):
            if flow.ending:
                self.cut = True
                break
            if group.number in usable:
                self._same_place(journal.finished[group.number], group.places[-1])
                group.documents = []  # they are encoded
            rejected += len(group.rejected)
            if self.max_rejected is not None and rejected > self.max_rejected:
                # The writer says so, when it has noted them.
                read.put(ReadGroup(rejected=group.rejected))
                break
            read.put(group)
        read.close()

    def _same_place(self, entry: ShardEntry, place: Place) -> None:
        if (entry.last_file, entry.last_line) != place:
            raise SteelyardError(
                f"{self.folder}/{entry.name} ends at line {entry.last_line} {entry.last_file}, "
                f"the corpus at {place[1]} {place[0]}",
                "delete the folder and encode again",
            )

    def _encode(self, flow: Flow, read: Channel[ReadGroup], encoded: Channel[_Encoded]) -> None:
        encoder = self.encoder or LocalEncoder(self.open_encoder, self.plan)
        with self.progress.stage("encode documents", self.plan.corpus_lines) as advance:

            def advance_batch(count: int) -> None:
                flow.check()
                if not self.plan.passages:
                    advance(count)

            for group, made in encoder.encode(self._to_encode(flow, read), advance_batch):
                advanced = 0 if made is None or self.plan.passages else len(group.documents)
                advance(group.read - advanced)
                encoded.put(_Encoded(group, made))
        encoded.close()

    def _to_encode(self, flow: Flow, read: Channel[ReadGroup]) -> Iterator[ReadGroup]:
        for group in read:
            self.cut = self.cut or (bool(group.documents) and flow.ending)
            if not self.cut:
                yield group

    def _write(self, encoded: Channel[_Encoded], journal: Journal, shards: FinishedShards) -> None:
        rejected, read = RejectedFile(self.folder, self.max_rejected), 0
        entries: list[ShardEntry] = []
        for group in encoded:
            bad: list[RejectedDocument] = []
            if group.read.number is not None:
                if group.made is None:
                    entry = journal.finished[group.read.number]
                else:
                    entry = self._store(group.read.number, group.read, group.made)
                    journal.append(entry)
                bad = entry.rejected
                self._count(entry, reused=group.made is None)
                entries.append(entry)
                shards.add(entry)
            read += group.read.read
            self.progress.count("documents", group.read.read, stage="read")
            found = sorted([*group.read.rejected, *bad], key=lambda r: (r.file, r.line or 0))
            for one in found:
                self.progress.count("documents", 1, stage="rejected", reason=one.reason)
            rejected.add(found)
        if self.cut:
            return
        manifest = self._manifest(entries, read, rejected.count)
        write_manifest(self.folder, manifest)
        shards.complete(manifest)

    def _count(self, entry: ShardEntry, *, reused: bool) -> None:
        self.progress.count("documents", entry.wholes, stage="encoded")
        if self.plan.passages:
            self.progress.count("passages", entry.documents, stage="encoded")
        if reused:
            self.progress.count("documents", entry.wholes, stage="reused")
        else:
            self.progress.count("bytes", entry.bytes, stage="written")

    def _count_finished(self, manifest: Manifest) -> None:
        self.progress.count("documents", manifest.read, stage="read")
        for entry in manifest.shards:
            self._count(entry, reused=True)
        path = self.folder / REJECTED
        if not path.exists():  # somebody has taken it away
            self.progress.count("documents", manifest.rejected, stage="rejected")
            return
        with path.open("rb") as stream:
            for line in stream:
                one = RejectedDocument.model_validate_json(line)
                if one.engine is None:
                    self.progress.count("documents", 1, stage="rejected", reason=one.reason)

    def _store(self, number: int, group: ReadGroup, made: EncodedGroup) -> ShardEntry:
        """Write a shard; its name counts only when the journal has it."""
        content, places, bad = _whole_documents(group, made)
        path = self.folder / shard_name(number)
        with storing(path):
            write_shard(path, content, self.plan.fields)
            sync_folder(self.folder)
        return ShardEntry(
            name=path.name,
            number=number,
            documents=len(content),
            wholes=len(set(places)),
            last_file=group.places[-1][0],
            last_line=group.places[-1][1],
            bytes=path.stat().st_size,
            sha256=sha256_of(path),
            rejected=bad,
        )

    def _manifest(self, entries: list[ShardEntry], read: int, rejected: int) -> Manifest:
        """What the folder holds, once its counts add up."""
        if read != self.plan.corpus_lines:
            raise InputError(
                f"{self.corpus.name} had {self.plan.corpus_lines} lines when the job began, "
                f"{read} were read",
                "it was changed meanwhile: run again",
            )
        if self.corpus.modified() != self.modified:
            self._check_unchanged()
        wholes = sum(entry.wholes for entry in entries)
        if not wholes:
            raise InputError(
                f"no document in {self.corpus.name}: {read} lines read, all rejected",
                f"see {self.folder / 'rejected.jsonl'}",
            )
        if read != wholes + rejected:
            raise SteelyardError(
                f"{read} lines read, {wholes} encoded and {rejected} rejected do not add up",
                "this is a bug: please report it",
            )
        return Manifest(
            plan=self.plan,
            shards=entries,
            read=read,
            wholes=wholes,
            encoded=sum(entry.documents for entry in entries),
            rejected=rejected,
            corpus_modified=self.modified.isoformat(),
        )

    def _check_unchanged(self) -> None:
        """The same number of lines may be others."""
        found = self.corpus.survey().sha256
        if found != self.plan.corpus_sha256:
            raise InputError(
                f"{self.corpus.name} had the SHA-256 {self.plan.corpus_sha256:.12} when the job "
                f"began, now it has {found:.12}",
                "it was changed while it was read: delete the folder of the shards, and run again",
            )


@dataclass(slots=True)
class _Encoded:
    """A group on its way to the disk; ``made`` is None where there is nothing new to write."""

    read: ReadGroup
    made: EncodedGroup | None


def _whole_documents(
    group: ReadGroup, made: EncodedGroup
) -> tuple[EncodedDocuments, list[Place], list[RejectedDocument]]:
    """What can be stored, the place of each row, and what cannot: no document in part."""
    bad = {group.places[i]: group.documents[i] for i in reversed(made.not_finite)}
    rejected = [
        RejectedDocument(
            line=line,
            id=document.parent_id or document.id,
            reason="NaN or infinite vector",
            file=file,
        )
        for (file, line), document in sorted(bad.items())
    ]
    keep = [i for i, row in enumerate(made.rows) if group.places[row] not in bad]
    places = [group.places[made.rows[i]] for i in keep]
    content = made.encoded
    if len(keep) < len(content):
        content = content.select(keep)
    return content, places, rejected
