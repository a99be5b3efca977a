"""A corpus in the portions that become shards: the reading end of the job."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from steelyard.indexer.encoding.manifest import EncodingPlan, RejectedDocument
from steelyard.indexer.reading.corpus import Corpus
from steelyard.indexer.reading.documents import documents_of
from steelyard.indexer.reading.passages import Splitter
from steelyard.indexer.reading.validation import Rejection
from steelyard.types import Document

Place: TypeAlias = tuple[str, int]
"""File and line of a record; no file where the corpus is one."""


@dataclass(slots=True)
class ReadGroup:
    """What was read for one shard, or only rejections.

    Attributes:
        number: of the shard; None: rejections without documents.
        documents: rows of the shard: documents or passages.
        places: where the record of each stands.
        rejected: records before the last one that are no documents.
        read: records of the corpus in it.
    """

    number: int | None = None
    documents: list[Document] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    rejected: list[RejectedDocument] = field(default_factory=list)
    read: int = 0


def read_groups(
    corpus: Corpus, plan: EncodingPlan, split: Splitter | None = None
) -> Iterator[ReadGroup]:
    """All records of a corpus, in order, in groups of ``plan.shard_documents`` rows.

    A document is never divided between two groups: with passages a group may be a little larger.
    No group is larger because of what was rejected: many rejections are a group of their own.
    """
    number, group = 0, ReadGroup()
    for result in documents_of(corpus, plan.fields, split):
        if isinstance(result, Rejection):
            group.read += 1
            group.rejected.append(
                RejectedDocument(
                    line=result.line, id=result.id, reason=result.reason, file=result.file
                )
            )
            if len(group.rejected) >= plan.shard_documents:
                # The documents read so far wait for the rest of their shard.
                yield ReadGroup(rejected=group.rejected, read=group.read)
                group = ReadGroup(documents=group.documents, places=group.places)
            continue
        group.read += result.passage == 0
        group.documents.append(result.document)
        group.places.append((result.file, result.line))
        last = result.passage + 1 >= result.passages
        if last and len(group.documents) >= plan.shard_documents:
            group.number = number
            yield group
            number, group = number + 1, ReadGroup()
    if group.documents:
        group.number = number
    if group.read or group.documents:
        yield group
