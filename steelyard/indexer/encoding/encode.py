"""Corpus to shards: read, validate, encode by length, write, journal.

A shard holds a fixed number of documents in corpus order and a batch never crosses a shard, so a
job that was killed continues to byte-identical shards.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from steelyard.encoders.documents.batching import BATCH_TOKENS
from steelyard.encoders.documents.protocol import DocumentEncoder
from steelyard.encoders.folder_lock import locked_folder
from steelyard.encoders.pack.files import sha256_of
from steelyard.errors import InputError, SteelyardError
from steelyard.indexer.encoding.group import EncodedGroup
from steelyard.indexer.encoding.in_order import LocalEncoder, PortionEncoder
from steelyard.indexer.encoding.manifest import (
    EncodingPlan,
    Journal,
    Manifest,
    RejectedDocument,
    ShardEntry,
    check_shard,
    read_manifest,
    write_manifest,
    write_rejected,
)
from steelyard.indexer.encoding.shards import write_shard
from steelyard.indexer.reading.readers import CorpusFile
from steelyard.indexer.reading.validation import ReadDocument, Rejection, validate
from steelyard.progress import Progress
from steelyard.types import Document

SHARD_DOCUMENTS = 2048


def plan_encoding(
    corpus: CorpusFile,
    *,
    dense_space: str,
    sparse_space: str,
    vocabulary_size: int,
    dims: int,
    precision: str,
    fields: dict[str, str] | None = None,
    shard_documents: int = SHARD_DOCUMENTS,
    batch_tokens: int = BATCH_TOKENS,
) -> EncodingPlan:
    """Look over a corpus and fix what its shards will hold."""
    digest, lines = corpus.survey()
    return EncodingPlan(
        corpus_sha256=digest,
        corpus_lines=lines,
        dense_space=dense_space,
        sparse_space=sparse_space,
        vocabulary_size=vocabulary_size,
        dims=dims,
        precision=precision,
        shard_documents=shard_documents,
        batch_tokens=batch_tokens,
        fields=fields or {},
    )


def encode_corpus(
    corpus: CorpusFile,
    plan: EncodingPlan,
    open_encoder: Callable[[], DocumentEncoder],
    folder: Path,
    progress: Progress,
    *,
    max_rejected: int | None = None,
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
        encoder: where to encode; None: here, with ``open_encoder``.

    Raises:
        InputError: the folder belongs to another plan or is in use, or too much was rejected.
    """
    with locked_folder(folder):
        complete = read_manifest(folder)
        if complete is not None and complete.plan == plan:
            for entry in complete.shards:
                check_shard(folder, entry)
            progress.say(f"{complete.encoded:,} documents already encoded in {folder}")
            _check_rejected(complete.rejected, max_rejected, folder)
            return complete
        journal = Journal(folder, plan)
        for entry in journal.finished:
            check_shard(folder, entry)
        encoder = encoder or LocalEncoder(open_encoder, plan)
        return _encode(corpus, plan, encoder, folder, journal, progress, max_rejected)


@dataclass(slots=True)
class _Portion:
    """A shard's documents; none where the shard is finished."""

    documents: list[Document]
    lines: list[int]
    read: int


def _encode(
    corpus: CorpusFile,
    plan: EncodingPlan,
    encoder: PortionEncoder,
    folder: Path,
    journal: Journal,
    progress: Progress,
    max_rejected: int | None,
) -> Manifest:
    rejected: list[RejectedDocument] = []
    count = 0

    def documents() -> Iterator[ReadDocument]:
        nonlocal count
        for result in validate(corpus.lines(), plan.fields):
            count += 1
            if isinstance(result, Rejection):
                rejected.append(_entry(result))
                _check_rejected(len(rejected), max_rejected, folder, rejected)
            else:
                yield result

    finished = list(journal.finished)

    def portions() -> Iterator[_Portion]:
        stream = documents()
        for number in itertools.count():
            before = count
            group = list(itertools.islice(stream, plan.shard_documents))
            if not group:
                return
            entry = finished[number] if number < len(finished) else None
            if entry is not None and entry.last_line != group[-1].line:
                raise SteelyardError(
                    f"{folder}/{entry.name} ends at line {entry.last_line}, the corpus at "
                    f"{group[-1].line}",
                    "delete the folder and encode again",
                )
            texts = [read.document for read in group] if entry is None else []
            lines = [read.line for read in group]
            yield _Portion(texts, lines, count - before)

    with progress.stage("encode documents", plan.corpus_lines) as advance:
        for number, (portion, made) in enumerate(encoder.encode(portions(), advance)):
            advance(portion.read - len(portion.documents))
            if made is None:
                entry = finished[number]
            else:
                entry = _store(portion, number, made, plan, folder)
                journal.append(entry)
            rejected.extend(entry.rejected)
            _check_rejected(len(rejected), max_rejected, folder, rejected)
    write_rejected(folder, rejected)
    if count != plan.corpus_lines:
        raise InputError(
            f"{corpus.path} had {plan.corpus_lines} lines when the job began, {count} were read",
            "it was changed meanwhile: run again",
        )
    encoded = sum(entry.documents for entry in journal.finished)
    if not encoded:
        raise InputError(
            f"no document in {corpus.path}: {count} lines read, all rejected",
            f"see {folder / 'rejected.jsonl'}",
        )
    if count != encoded + len(rejected):
        raise SteelyardError(
            f"{count} lines read, {encoded} encoded and {len(rejected)} rejected do not add up",
            "this is a bug: please report it",
        )
    manifest = Manifest(
        plan=plan,
        shards=journal.finished,
        read=count,
        encoded=encoded,
        rejected=len(rejected),
    )
    write_manifest(folder, manifest)
    return manifest


def _store(
    portion: _Portion, number: int, made: EncodedGroup, plan: EncodingPlan, folder: Path
) -> ShardEntry:
    bad = [
        RejectedDocument(
            line=portion.lines[i], id=portion.documents[i].id, reason="NaN or infinite vector"
        )
        for i in made.not_finite
    ]
    path = folder / f"shard-{number:05d}.parquet"
    write_shard(path, made.encoded, plan.fields)
    return ShardEntry(
        name=path.name,
        documents=len(made.encoded),
        last_line=portion.lines[-1],
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
        rejected=bad,
    )


def _entry(rejection: Rejection) -> RejectedDocument:
    return RejectedDocument(line=rejection.line, id=rejection.id, reason=rejection.reason)


def _check_rejected(
    count: int,
    limit: int | None,
    folder: Path,
    rejected: list[RejectedDocument] | None = None,
) -> None:
    if limit is None or count <= limit:
        return
    if rejected is not None:
        write_rejected(folder, rejected)
    raise InputError(
        f"{count} lines rejected, --max-rejected allows {limit}",
        f"see {folder / 'rejected.jsonl'}, mend the corpus or raise the limit",
    )
