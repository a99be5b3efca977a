"""A file of documents into the published generation, some hundred at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from steelyard.errors import InputError
from steelyard.indexer.changes.live import LiveIndex
from steelyard.indexer.reading.corpus import Corpus
from steelyard.indexer.reading.validation import ReadDocument, Rejection, read_document
from steelyard.plugin.engine import Generation
from steelyard.types import Document

AT_ONCE = 256
TEXT_AT_ONCE = 4_000_000
"""Characters."""


@dataclass(frozen=True, slots=True)
class UpsertReport:
    """What became of a file; read = documents + rejected, but for ids that came again.

    Attributes:
        generation: name of the one that the last documents went to.
        read: records.
        documents, rows: written: whole documents, and their passages.
        rejected: records that are no documents, and documents that could not be written.
        replayed: entries of the log that were applied first.
        sequence: number of the last entry of the log.
    """

    generation: str
    read: int
    documents: int
    rows: int
    rejected: int
    replayed: int
    sequence: int


class RejectedLines:
    """The file of what was rejected; made when there is something to write.

    Args:
        path: of the file; one that is there is replaced.
        limit: how many are allowed; None is any number.
    """

    def __init__(self, path: Path, limit: int | None = None) -> None:
        self._path, self._limit, self.count = path, limit, 0

    def add(self, rejection: Rejection) -> None:
        """Note one.

        Raises:
            InputError: there are more than are allowed, or the file cannot be written.
        """
        self.count += 1
        try:
            with self._path.open("w" if self.count == 1 else "a", encoding="utf-8") as stream:
                stream.write(json.dumps(asdict(rejection)) + "\n")
        except OSError as error:
            raise InputError(
                f"{self._path} cannot be written: {error.strerror}", "give --rejected FILE"
            ) from error
        if self._limit is not None and self.count > self._limit:
            raise InputError(
                f"{self.count} records rejected, --max-rejected allows {self._limit}",
                f"see {self._path}; what was before them is written",
            )


def upsert_corpus(
    corpus: Corpus,
    live: LiveIndex,
    rejected: RejectedLines,
    fields: Mapping[str, str] | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> UpsertReport:
    """Write every document of a corpus; of the same id twice the later one counts.

    Args:
        corpus: what to read.
        live: where to; searches see all of it when this returns.
        rejected: told of what is no document.
        fields: metadata fields to read; None are those that the generation declares.
        advance: told the records done.

    Raises:
        InputError: a field that the generation does not declare, or too much was rejected.
    """
    generation = live.generation()
    declared = _declared(generation, fields)
    read = documents = rows = replayed = sequence = 0
    name = generation.name
    try:
        for count, batch in _batches(corpus, declared, rejected):
            read += count
            if batch:
                done = live.upsert([each.document for each in batch.values()], searchable=False)
                documents, rows = documents + done.documents, rows + done.rows
                replayed, sequence = replayed + done.replayed, done.sequence
                name = done.generation
                for identifier, reason in done.refused.items():
                    each = batch[identifier]
                    rejected.add(Rejection(each.line, identifier, reason, each.file))
            advance(count)
    finally:
        if documents:
            live.make_searchable()
    return UpsertReport(name, read, documents, rows, rejected.count, replayed, sequence)


def _batches(
    corpus: Corpus, fields: Mapping[str, str], rejected: RejectedLines
) -> Iterator[tuple[int, dict[str, ReadDocument]]]:
    """Records read since the last batch, and the documents of different ids among them."""
    batch: dict[str, ReadDocument] = {}
    count, size = 0, 0
    for record in corpus.records(fields):
        found = read_document(record, corpus.mapping, fields)
        if isinstance(found, Rejection):
            rejected.add(found)
            count += 1
            continue
        document: Document = found.document
        full = len(batch) >= AT_ONCE or size >= TEXT_AT_ONCE
        if full or document.id in batch:
            yield count, batch
            batch, count, size = {}, 0, 0
        batch[document.id] = found
        count, size = count + 1, size + len(document.content)
    if count:
        yield count, batch


def _declared(generation: Generation, fields: Mapping[str, str] | None) -> Mapping[str, str]:
    """The fields to read."""
    if fields is None:
        return generation.fields
    for name, kind in fields.items():
        if generation.fields.get(name) != kind:
            ours = ",".join(f"{n}:{k}" for n, k in generation.fields.items()) or "none"
            raise InputError(
                f"{generation.name} declares no metadata field {name}:{kind}",
                f"it declares {ours}; others need a new index",
            )
    return fields
