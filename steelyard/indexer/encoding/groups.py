"""A corpus in the portions that become shards: the reading end of the job."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from steelyard.indexer.encoding.manifest import EncodingPlan, RejectedDocument
from steelyard.indexer.reading.readers import CorpusFile
from steelyard.indexer.reading.validation import Rejection, validate
from steelyard.types import Document

Split: TypeAlias = Callable[[Document], Sequence[Document]]
"""A document as its passages; one that fits is its only one."""


def whole(document: Document) -> Sequence[Document]:
    """No splitting."""
    return (document,)


@dataclass(slots=True)
class ReadGroup:
    """What was read for one shard, or only rejections.

    Attributes:
        number: of the shard; None: rejections without documents.
        documents: rows of the shard: documents or passages.
        lines: the line of each.
        rejected: lines before the last one that are no documents.
        read: lines of the corpus in it.
    """

    number: int | None = None
    documents: list[Document] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    rejected: list[RejectedDocument] = field(default_factory=list)
    read: int = 0


def read_groups(
    corpus: CorpusFile, plan: EncodingPlan, split: Split = whole
) -> Iterator[ReadGroup]:
    """All lines of a corpus, in order, in groups of ``plan.shard_documents`` rows.

    A document is never divided between two groups: with passages a group may be a little larger.
    No group is larger because of what was rejected: many rejections are a group of their own.
    """
    number, group = 0, ReadGroup()
    for result in validate(corpus.lines(), plan.fields):
        group.read += 1
        if isinstance(result, Rejection):
            group.rejected.append(
                RejectedDocument(line=result.line, id=result.id, reason=result.reason)
            )
            if len(group.rejected) >= plan.shard_documents:
                # The documents read so far wait for the rest of their shard.
                yield ReadGroup(rejected=group.rejected, read=group.read)
                group = ReadGroup(documents=group.documents, lines=group.lines)
            continue
        for passage in split(result.document):
            group.documents.append(passage)
            group.lines.append(result.line)
        if len(group.documents) >= plan.shard_documents:
            group.number = number
            yield group
            number, group = number + 1, ReadGroup()
    if group.documents:
        group.number = number
    if group.read or group.documents:
        yield group
