"""Whole documents of a live change to what a generation holds of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Protocol, TypeAlias

from steelyard.encoders.documents.batching import BATCH_TOKENS
from steelyard.encoders.documents.protocol import DocumentEncoder
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import EngineError, PackMismatchError
from steelyard.indexer.encoding.group import encode_group
from steelyard.plugin.engine import Generation
from steelyard.types import Document, EncodedDocuments

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
        check_pack(self._pack, generation)
        pieces: list[Document] = list(documents)
        if generation.passages:
            tokens, overlap = read_passages(generation)
            pieces = [p for d in documents for p in self._split(d, tokens, overlap)]
        if self._encoder is None:
            self._encoder = self._open()
        made = encode_group(
            pieces,
            self._encoder,
            dims=generation.dims,
            vocabulary_size=generation.vocabulary_size,
            batch_tokens=self._batch_tokens,
        )
        if not made.not_finite:
            return EncodedChange(made.encoded)
        # A document with a passage that cannot be encoded is refused whole.
        bad = {_whole_id(pieces[row], generation) for row in made.not_finite}
        rows = [
            place
            for place, document in enumerate(made.encoded.documents)
            if _whole_id(document, generation) not in bad
        ]
        content = EncodedDocuments(
            [made.encoded.documents[row] for row in rows],
            made.encoded.dense[rows],
            made.encoded.sparse.select(rows),
        )
        return EncodedChange(content, dict.fromkeys(sorted(bad), "NaN or infinite vector"))

    def _by_tokens(self, document: Document, tokens: int, overlap: int) -> list[Document]:
        passages = import_module("steelyard.indexer.reading.passages")
        found: list[Document] = passages.split_passages(
            document, self._pack.tokenizer, tokens, overlap
        )
        return found


def check_pack(pack: QueryEncoder, generation: Generation) -> None:
    """Refuse a pack whose documents' vectors are not the generation's.

    Raises:
        PackMismatchError: with both spaces.
    """
    spaces = pack.metadata.spaces
    ours = (spaces.dense, spaces.sparse)
    theirs = (generation.dense_space, generation.sparse_space)
    if ours != theirs:
        raise PackMismatchError(
            f"{generation.name} is in {theirs[0]} and {theirs[1]}, the pack makes {ours[0]} and "
            f"{ours[1]}",
            f"give the pack it was made with ({generation.pack_id}), or index the corpus again",
        )


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


def _whole_id(piece: Document, generation: Generation) -> str:
    """The id of the document that a piece is of."""
    return whole_id(piece.id, piece.parent_id) if generation.passages else piece.id


def whole_id(identifier: str, parent: str) -> str:
    """Of a passage its document's id, ``x`` of ``x#3``; of a whole document its own."""
    base, mark, number = identifier.rpartition("#")
    passage = mark and base == parent and number.isascii() and number.isdigit()
    return parent if passage else identifier
