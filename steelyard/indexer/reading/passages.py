"""Long documents to passages: by tokens, with overlap, cut where the text allows it.

A passage is an exact piece of the text; the title stands on every one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steelyard.errors import InputError
from steelyard.types import MAX_ID_BYTES, Document

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_WRITTEN = re.compile(r"([0-9]{1,6})(?:/([0-9]{1,6}))?")
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*\s|[。！？]|\n")
_NEAR = 4
"""A better place to cut is looked for in the last quarter of a passage."""


@dataclass(frozen=True, slots=True)
class PassageLength:
    """How long passages are: ``256/32``.

    Attributes:
        tokens: at most so many, the title's counted.
        overlap: so many of a passage's last tokens are at most said again by the next one.
    """

    tokens: int
    overlap: int = 0

    def __post_init__(self) -> None:
        if self.tokens < 8 or not 0 <= self.overlap < self.tokens // 2:
            raise InputError(
                f"passages of {self.tokens} tokens with an overlap of {self.overlap}",
                "at least 8 tokens, and an overlap of less than half of them",
            )

    @classmethod
    def parse(cls, text: str) -> PassageLength:
        """Read ``tokens/overlap`` or ``tokens``.

        Raises:
            InputError: it is neither, or cannot be done.
        """
        found = _WRITTEN.fullmatch(text.strip())
        if found is None:
            raise InputError(f"cannot read the passages {text!r}", "write TOKENS/OVERLAP: 256/32")
        return cls(int(found[1]), int(found[2] or 0))

    def __str__(self) -> str:
        return f"{self.tokens}/{self.overlap}"


class Splitter:
    """Splits documents into passages, many at once.

    Args:
        tokenizer: of the pack: it adds and cuts nothing.
        length: of passages.
    """

    def __init__(self, tokenizer: Tokenizer, length: PassageLength) -> None:
        self._tokenizer, self.length = tokenizer, length

    def split(self, documents: Sequence[Document]) -> list[list[Document]]:
        """The passages of each document, in order; a document that fits is its only passage.

        One that names another parent is a passage already, and is left as it is.
        """
        whole = [d.parent_id not in ("", d.id) for d in documents]
        titles = self._tokenizer.encode_batch_fast(
            ["" if left else d.title for left, d in zip(whole, documents, strict=True)],
            add_special_tokens=False,
        )
        texts = self._tokenizer.encode_batch(
            ["" if left else d.text for left, d in zip(whole, documents, strict=True)],
            add_special_tokens=False,
        )
        return [
            [document] if left else self._passages(document, len(title.ids), text.offsets)
            for left, document, title, text in zip(whole, documents, titles, texts, strict=True)
        ]

    def _passages(
        self, document: Document, title: int, offsets: list[tuple[int, int]]
    ) -> list[Document]:
        length = self.length
        if title + len(offsets) <= length.tokens:
            return [document]
        # A long title leaves at least half of a passage to the text.
        room = max(length.tokens - title, length.tokens // 2)
        spans = cut(document.text, offsets, room, length.overlap)
        if len(spans) < 2:
            return [document]
        pieces = (document.text[start:end] for start, end in spans)
        return [
            Document(
                f"{document.id}#{number}", piece, document.title, document.id, document.metadata
            )
            for number, piece in enumerate(pieces)
        ]


def split_passages(
    document: Document, tokenizer: Tokenizer, tokens: int, overlap: int
) -> list[Document]:
    """One document's passages, ``<id>#<n>`` from 0; see ``Splitter.split``.

    Raises:
        ValueError: a passage's id would be longer than engines take.
    """
    (passages,) = Splitter(tokenizer, PassageLength(tokens, overlap)).split([document])
    check_passage_ids(passages)
    return passages


def check_passage_ids(passages: Sequence[Document]) -> None:
    """Raise a ValueError when the longest id is longer than engines take."""
    size = len(passages[-1].id.encode())
    if size > MAX_ID_BYTES:
        raise ValueError(f"passage id of {size} bytes, at most {MAX_ID_BYTES}")


def cut(
    text: str, offsets: Sequence[tuple[int, int]], room: int, overlap: int
) -> list[tuple[int, int]]:
    """Pieces of a text, each of at most ``room`` tokens, without white space around them.

    Args:
        text: the text.
        offsets: first character and end of every token.
        room: tokens of a piece, more than ``overlap``.
        overlap: tokens at the end of a piece that the next one says again; fewer where it would
            begin inside a word.

    Returns:
        First character and end of every piece. All that is not white space is in one.
    """
    borders = _Borders(text, offsets)
    spans: list[tuple[int, int]] = []
    first, count = 0, len(offsets)
    while True:
        end = count if first + room >= count else borders.end(first, room, overlap)
        start = 0 if first == 0 else borders.place(first)
        piece = text[start : borders.place(end)]
        start += len(piece) - len(piece.lstrip())
        stop = start + len(piece.strip())
        # White space may be tokens too: a piece may say nothing that the last one has not.
        if stop > start and (not spans or stop > spans[-1][1]):
            spans.append((start, stop))
        if end >= count:
            return spans
        first = borders.begin(max(end - overlap, first + 1), end)


class _Borders:
    """Where a text may be cut: before a token, by the token's number."""

    def __init__(self, text: str, offsets: Sequence[tuple[int, int]]) -> None:
        self._text, self._offsets = text, offsets

    def place(self, token: int) -> int:
        """The character at which a token begins; behind the last one, the text's end."""
        return len(self._text) if token >= len(self._offsets) else self._offsets[token][0]

    def end(self, first: int, room: int, overlap: int) -> int:
        """Where a piece ends: behind a sentence, else a word, else any token, near its limit."""
        limit = first + room
        lowest = max(limit - max(1, room // _NEAR), first + overlap + 1)
        word = token = None
        for at in range(limit, lowest - 1, -1):
            if not self._clean(at):
                continue
            between = self._before(at)
            if _SENTENCE_END.search(between):
                return at
            if word is None and between[-1:].isspace():
                word = at
            token = token or at
        found = word or token
        while found is None:
            # One character of many tokens fills the piece: it ends with that character.
            lowest += 1
            found = lowest if self._clean(lowest) else None
        return found

    def begin(self, lowest: int, end: int) -> int:
        """Where the next piece begins: at a word, or a token, not before ``lowest``."""
        clean = [at for at in range(lowest, end + 1) if self._clean(at)]
        words = (at for at in clean if self._before(at)[-1:].isspace())
        return next(words, clean[0] if clean else end)

    def _clean(self, token: int) -> bool:
        """Whether a character ends before this token; several may share one."""
        if token >= len(self._offsets):
            return True
        start = self._offsets[token][0]
        return start >= self._offsets[token - 1][1] and start > self._offsets[token - 1][0]

    def _before(self, token: int) -> str:
        """What stands between the beginning of the token before and this one."""
        return self._text[self._offsets[token - 1][0] : self.place(token)]
