"""Token ids of pieces of text, learnt one by one: a piece is cut into words, a word asked for."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence

from tokenizers import Tokenizer

from steelyard.encoders.query.words import WordRules

MAX_LENGTH = 48
"""Characters of a piece that is remembered: longer ones come once."""

ASK = array("i", [-1]).tobytes()
"""In the place of ids: the tokenizer is to be asked."""


class LearntPieces(dict[str, bytes]):
    """Pieces to token ids, int32. A space belongs to the piece behind it, if to any.

    Args:
        tokenizer: whose ids these are.
        rules: how it cuts.
        added: its added tokens as it looks for them, in whatever case.
        limit: of pieces; then all are forgotten and learnt anew.
    """

    def __init__(
        self, tokenizer: Tokenizer, rules: WordRules, added: Sequence[str], limit: int
    ) -> None:
        super().__init__()
        self._limit = limit
        self._tokenizer = tokenizer
        self._rules = rules
        self._tokenize = tokenizer.model.tokenize
        known = "|".join(map(re.escape, added)) or "(?!)"
        self._added = re.compile(known, re.IGNORECASE).search

    def __missing__(self, piece: str) -> bytes:
        ids = self._learn(piece)
        if ids is None:
            return ASK
        self._keep(piece, ids)
        return ids

    def look_up(self, pieces: Sequence[str]) -> list[bytes | None]:
        """Of many at once, which is faster; None: it has no ids of its own."""
        known, of_words, keep = self.get, self._of_words, self._keep
        lowercase = self._rules.lowercase
        # No added token has a space: if all together hold none, none does.
        added = self._added(" ".join(pieces)) is not None
        found: list[bytes | None] = []
        for piece in pieces:
            ids = known(piece)
            if ids is None:
                if added or not piece.isascii() or not piece.isprintable():
                    ids = self[piece]  # takes a closer look
                else:
                    ids = of_words(piece.lower() if lowercase else piece)
                    keep(piece, ids)
            found.append(None if ids is ASK else ids)
        return found

    def _keep(self, piece: str, ids: bytes) -> None:
        if len(piece) <= MAX_LENGTH:
            if len(self) >= self._limit:
                self.clear()
            self[piece] = ids

    def _learn(self, text: str) -> bytes | None:
        """Token ids of a piece; None: they are not its own."""
        rules = self._rules
        if not text.isprintable() or self._added(text):
            return None
        if text.isascii():
            return self._of_words(text.lower() if rules.lowercase else text)
        # Alone it is the beginning of a text: ``rules`` let none get a space there that it lacks.
        if not rules.beyond_ascii or len(text) > MAX_LENGTH:
            return None
        normalizer = self._tokenizer.normalizer
        if normalizer is not None and self._added(normalizer.normalize_str(text)):
            return None
        return _packed(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _of_words(self, text: str) -> bytes:
        """Ids of printable ASCII without an added token."""
        words = self._rules.split(text)
        if len(words) == 1:
            tokens = self._tokenize(self._rules.written(words[0]))
            return _packed([token.id for token in tokens])
        return b"".join(map(self.__getitem__, words))


def _packed(ids: list[int]) -> bytes:
    return array("i", ids).tobytes()
