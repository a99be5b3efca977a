"""A corpus as a stream of documents: read, checked, never twice the same id, split into passages.

Every record gives either its documents or one rejection, in the order of the corpus.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from steelyard.indexer.reading.corpus import Corpus
from steelyard.indexer.reading.passages import Splitter, check_passage_ids
from steelyard.indexer.reading.places import Places
from steelyard.indexer.reading.seen_ids import SeenIds
from steelyard.indexer.reading.validation import ReadDocument, Rejection, read_document
from steelyard.types import Document

_AT_ONCE = 64
_PASSAGE_ID = re.compile(r"(.+)#(0|[1-9][0-9]{0,6})", re.DOTALL)
_COUNT_BITS = 24


def documents_of(
    corpus: Corpus, fields: Mapping[str, str] | None = None, split: Splitter | None = None
) -> Iterator[ReadDocument | Rejection]:
    """All documents of a corpus, and the records that are none.

    Args:
        corpus: what to read.
        fields: declared metadata fields and their types.
        split: how long documents are split; None leaves them whole.

    Raises:
        InputError: the corpus cannot be read to its end.
    """
    declared = dict(fields or {})
    results = (
        read_document(record, corpus.mapping, declared) for record in corpus.records(declared)
    )
    known = _KnownIds()
    if split is None:
        for result in results:
            yield from known.admit(result, None)
        return
    while batch := list(islice(results, _AT_ONCE)):
        whole = [result.document for result in batch if isinstance(result, ReadDocument)]
        passages = iter(split.split(whole))
        for result in batch:
            found = next(passages) if isinstance(result, ReadDocument) else None
            yield from known.admit(result, found)


def good_documents(corpus: Corpus) -> Iterator[Document]:
    """The documents of a corpus, whole; records that are none are passed over.

    Raises:
        InputError: the corpus cannot be read to its end.
    """
    return (result.document for result in documents_of(corpus) if isinstance(result, ReadDocument))


class _KnownIds:
    """Ids so far, those of passages too, without keeping each of these."""

    def __init__(self) -> None:
        self._seen, self._places = SeenIds(), Places()

    def admit(
        self, result: ReadDocument | Rejection, passages: Sequence[Document] | None
    ) -> Iterator[ReadDocument | Rejection]:
        """A record's documents, if its id and theirs are new."""
        place = self._places.number(result.file, result.line)
        if isinstance(result, Rejection):
            yield result
            return
        document = result.document
        split = passages if passages is not None and len(passages) > 1 else ()
        try:
            if split:
                check_passage_ids(split)
            self._check_passages(document.id, split, result.file)
            if known := self._seen.add(document.id, place << _COUNT_BITS | len(split)):
                raise ValueError(f"duplicate id, first on {self._where(known, result.file)}")
        except ValueError as error:
            yield Rejection(result.line, document.id, str(error), result.file)
            return
        if not split:
            yield result
            return
        for number, passage in enumerate(split):
            yield ReadDocument(result.line, passage, result.file, number, len(split))

    def _check_passages(self, identifier: str, passages: Sequence[Document], file: str) -> None:
        """Neither is the id that of a passage before, nor are its passages' those of documents."""
        if found := _PASSAGE_ID.fullmatch(identifier):
            known = self._seen.get(found[1])
            if known & (1 << _COUNT_BITS) - 1 > int(found[2]):
                raise ValueError(f"duplicate id, of a passage of {self._where(known, file)}")
        for passage in passages:
            if known := self._seen.get(passage.id):
                raise ValueError(
                    f"its passage {passage.id} has the id of {self._where(known, file)}"
                )

    def _where(self, known: int, file: str) -> str:
        return self._places.show(known >> _COUNT_BITS, file)
