"""Whole documents of a live change to what a generation holds of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

from steelyard.encoders.documents.batching import BATCH_TOKENS
from steelyard.encoders.documents.protocol import DocumentEncoder
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import EngineError
from steelyard.indexer.encoding.group import encode_group
from steelyard.indexer.reading.passages import split_passages
from steelyard.plugin.engine import Generation
from steelyard.plugin.packs import check_spaces
from steelyard.types import Document, EncodedDocuments, SparseVectors

Split: TypeAlias = Callable[[Document, int, int], list[Document]]
"""A document, tokens and overlap to its passages: one, itself, when it fits."""


@dataclass(frozen=True, slots=True)
class EncodedChange:
    """Documents as a generation holds them.

    Attributes:
        content: the documents, or their passages.
        refused: reason by id, of documents that are not in ``content``: none of their passages.
    """

    content: EncodedDocuments
    refused: Mapping[str, str] = field(default_factory=dict)


class ChangeEncoder(Protocol):
    """Encodes documents for a generation."""

    def encode(self, documents: Sequence[Document], generation: Generation) -> EncodedChange:
        """Split, as the generation says, and encode.

        Args:
            documents: whole ones, of different ids.
            generation: in whose spaces.

        Raises:
            PackMismatchError: the generation is of other spaces.
        """


class PackChangeEncoder:
    """The ``ChangeEncoder`` of a pack; the document encoder is opened when it is first needed.

    Args:
        pack: whose documents' spaces the vectors are in.
        open_encoder: its document encoder.
        split: None is by the pack's own tokenizer.
        batch_tokens: padded tokens in a batch.
    """

    def __init__(
        self,
        pack: QueryEncoder,
        open_encoder: Callable[[], DocumentEncoder],
        *,
        split: Split | None = None,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        self._pack, self._open, self._batch_tokens = pack, open_encoder, batch_tokens
        self._split = split or self._by_tokens
        self._encoder: DocumentEncoder | None = None

    def encode(self, documents: Sequence[Document], generation: Generation) -> EncodedChange:
        """See ``ChangeEncoder.encode``."""
        check_spaces(
            self._pack.metadata.spaces,
            generation,
            f"give the pack it was made with ({generation.pack_id}), or index the corpus again",
        )
        refused: dict[str, str] = {}
        pieces: list[Document] = []
        owners: list[str] = []
        for document in documents:
            try:
                found = self._pieces(document, generation)
            except ValueError as error:
                refused[document.id] = str(error)
                continue
            pieces += found
            owners += [document.id] * len(found)
        if pieces and self._encoder is None:
            self._encoder = self._open()
        if not pieces or self._encoder is None:
            return EncodedChange(no_documents(generation), refused)
        made = encode_group(
            pieces,
            self._encoder,
            dims=generation.dims,
            vocabulary_size=generation.vocabulary_size,
            batch_tokens=self._batch_tokens,
        )
        # A document with a passage that cannot be encoded is refused whole.
        bad = {owners[row] for row in made.not_finite}
        refused |= dict.fromkeys(sorted(bad), "NaN or infinite vector")
        rows = [place for place, row in enumerate(made.rows) if owners[row] not in bad]
        content = made.encoded
        if len(rows) < len(content):
            content = content.select(rows)
        return EncodedChange(content, refused)

    def _pieces(self, document: Document, generation: Generation) -> list[Document]:
        if not generation.passages:
            return [document]
        return self._split(document, *read_passages(generation))

    def _by_tokens(self, document: Document, tokens: int, overlap: int) -> list[Document]:
        return split_passages(document, self._pack.tokenizer, tokens, overlap)


def no_documents(generation: Generation) -> EncodedDocuments:
    """Nothing, in a generation's spaces."""
    nothing = SparseVectors.from_rows([], generation.vocabulary_size)
    return EncodedDocuments([], np.zeros((0, generation.dims), np.float32), nothing)


def read_passages(generation: Generation) -> tuple[int, int]:
    """Tokens and overlap, of ``256/32``.

    Raises:
        EngineError: neither is.
    """
    tokens, _, overlap = generation.passages.partition("/")
    if not tokens.isdigit() or not (overlap or "0").isdigit():
        raise EngineError(
            f"{generation.name} is split by {generation.passages!r}, which this version cannot "
            "read",
            "upgrade steelyard",
        )
    return int(tokens), int(overlap or "0")


def whole_id(identifier: str, parent: str) -> str:
    """Of a passage its document's id, ``x`` of ``x#3``; of a whole document its own."""
    base, mark, number = identifier.rpartition("#")
    passage = mark and base == parent and number.isascii() and number.isdigit()
    return parent if passage else identifier


def document_of(identifier: str) -> str:
    """The document that an id's form says it is a passage of; the id itself where it says none."""
    return whole_id(identifier, identifier.rpartition("#")[0])
