"""Token ids by piece of text, remembered: a text is tokenised by looking its pieces up.

A piece is what stands between two spaces, or less where the tokenizer cuts at punctuation. It is
learnt once, word by word; from then on one text is a split at its spaces and a dictionary look-up
a piece, and many texts are a few calls on arrays (``piece_table``). What the fast way does not
know for certain is left to the tokenizer: texts with characters that cannot be printed, an added
token, or a run of spaces where such runs are tokens; and tokenizers of another make (``words``).
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from steelyard.encoders.query.piece_table import Pieces, PieceTable, at_spaces, at_spaces_and
from steelyard.encoders.query.words import WordRules, word_rules

MAX_PIECES = 1 << 17
"""Pieces, and words, that are remembered; then all are forgotten and learnt anew."""

MAX_LENGTH = 48
"""Characters of a piece that is remembered: longer ones come once."""

_BLOCK = 1024
"""Texts that are split at once."""

_FEW = 48
"""So few texts are looked up one by one: calls on arrays have a price of their own."""

_MARK = "\1"
"""Before the first character of a text. Texts that hold it are left to the tokenizer."""

_MARK_BYTE = ord(_MARK)

_NUL = "\0"
"""Keys of pieces end in zeros: texts that hold it are left to the tokenizer too."""

_NOT_KNOWN = "\2"
"""Stands for such a text: a piece that no text on the fast way has."""

_ASK = array("i", [-1]).tobytes()
"""In the place of ids: the tokenizer is to be asked."""

_PROOF = (
    "What is the effect of vitamin D3 on COVID-19 patients' outcomes?",
    "it's we're they'll I'd don't IT'S WE'RE 'tis rock'n'roll 'sup ' d 'LL",
    "3.14159 and 1,234,567.89 or 0x1F (x86-64) 2024-11-21T10:00:00Z 5 10 150 1024",
    "  leading, trailing  and   runs of    spaces  ",
    " one before",
    "one behind ",
    "tabs\tand\nlines\r\nin \n it",
    "e-mail: first.last+tag@example.org; C:\\Users\\x #hash $5.00 50% a_b __init__",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis zzxqjw",
    '{"json": [1, 2, {"a": null}]} <b>html</b> ~tilde^caret`tick|pipe',
    "na\u00efve caf\u00e9s in Z\u00dcRICH: \u03b1-synuclein \u2265 5 \u03bcg/ml,",
    "10\u00b0 \u4f60\u597d \u00a8",
    *("", "a", " ", "!", "!!!", "?! ...", "A1b2C3", "MiXeD CaSe TEXT", "x" * 120, "9" * 40),
)
"""Texts on which the fast way must agree with the tokenizer before it is used."""


@dataclass(frozen=True, slots=True)
class FlatIds:
    """Token ids of n texts.

    Attributes:
        ids: int32, the rows one after the other.
        indptr: int64 ``[n + 1]``; row i is ``ids[indptr[i]:indptr[i + 1]]``.
        asked: int64, rows that the tokenizer has to make, ascending; what ``ids`` holds for them
            means nothing.
    """

    ids: NDArray[np.int32]
    indptr: NDArray[np.int64]
    asked: NDArray[np.int64]


class WordCache:
    """The fast way of one tokenizer; safe to use from many threads.

    Args:
        tokenizer: whose ids these are.
        rules: how it cuts.
        added: its added tokens as it looks for them, in whatever case.
    """

    def __init__(self, tokenizer: Tokenizer, rules: WordRules, added: Sequence[str]) -> None:
        self._lowercase = rules.lowercase
        self._white_space = rules.white_space
        self._pieces = _Pieces(tokenizer, rules, added)
        self._look_up: Callable[[str], bytes] = self._pieces.__getitem__
        self._table = PieceTable(MAX_PIECES)
        # An added token is never cut.
        apart = "".join(c for c in rules.apart if not any(c in token for token in added))
        self._cutter = at_spaces_and(apart + _MARK) if apart else at_spaces
        white = rules.white_space.encode("ascii")
        plain = bytes.maketrans(white, b" " * len(white))
        self._plain = plain.lower() if rules.lowercase else plain

    def encode_one(self, text: str) -> list[int] | None:
        """Token ids of a text; None: ask the tokenizer."""
        if _MARK in text:
            return None
        found = b"".join(map(self._look_up, self._cut(text)))
        return None if _ASK in found else array("i", found).tolist()

    def encode(self, texts: Sequence[str], prefixes: Sequence[str] = ("",)) -> list[FlatIds]:
        """Token ids of many texts, once with each prefix before them.

        Args:
            texts: n texts.
            prefixes: printable ASCII.

        Raises:
            TypeError, AttributeError: a text is no string.
        """
        if len(texts) <= _FEW:
            return [self._encode_few(texts, prefix) for prefix in prefixes]
        blocks = [texts[i : i + _BLOCK] for i in range(0, len(texts), _BLOCK)]
        return [
            _in_a_row([self._encode_block(block, prefix) for block in blocks])
            for prefix in prefixes
        ]

    def __len__(self) -> int:
        """Pieces that are remembered."""
        return len(self._pieces)

    def hit_rate(self, texts: Sequence[str]) -> float:
        """Share of these texts' pieces that batches have taught; learns nothing."""
        pieces = Pieces.cut(self._prepared(_joined(texts, "")), self._cutter)
        marks = pieces.begins(_MARK_BYTE)
        marks = marks[pieces.ends[marks] - pieces.starts[marks] == 1]
        known = np.delete(self._table.knows(pieces), marks)
        return float(known.mean()) if len(known) else 0.0

    def known(self) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """What is remembered now, for ``remember``; benchmarks compare from one state."""
        return dict(self._pieces), dict(self._pieces.words)

    def remember(self, known: tuple[dict[str, bytes], dict[str, bytes]]) -> None:
        """Forget everything but this, which the same cache knew before."""
        for now, then in zip((self._pieces, self._pieces.words), known, strict=True):
            now.clear()
            now.update(then)
        self._table.clear()
        if known[0]:
            data = " ".join(known[0]).encode("utf-8", "surrogatepass")
            self._table.encode(Pieces.cut(data, self._cutter), self._pieces.look_up)

    def _encode_few(self, texts: Sequence[str], prefix: str) -> FlatIds:
        rows = [
            _ASK if _MARK in text else b"".join(map(self._look_up, self._cut(prefix + text)))
            for text in texts
        ]
        asked = [row for row, ids in enumerate(rows) if _ASK in ids]
        for row in asked:
            rows[row] = b""
        indptr = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(ids) // len(_ASK) for ids in rows], out=indptr[1:])
        ids = np.frombuffer(b"".join(rows), dtype=np.int32)
        return FlatIds(ids, indptr, np.array(asked, dtype=np.int64))

    def _encode_block(self, texts: Sequence[str], prefix: str) -> FlatIds:
        data = _joined(texts, prefix)
        if data.count(_MARK_BYTE) != len(texts) or 0 in data:
            texts = [_NOT_KNOWN if _MARK in text or _NUL in text else text for text in texts]
            data = _joined(texts, prefix)
        pieces = Pieces.cut(self._prepared(data), self._cutter)
        ids, indptr, refused = self._table.encode(pieces, self._pieces.look_up)
        begins = pieces.begins(_MARK_BYTE)
        asked = np.unique(np.searchsorted(begins, refused, side="right") - 1)
        return FlatIds(ids, np.append(indptr[begins], indptr[-1]), asked)

    def _prepared(self, data: bytes) -> bytes:
        """White space as spaces, ASCII in lower case; the length stays.

        What stands between two spaces is lower-cased only if all of it is ASCII: there Python
        and the tokenizer agree what that is.
        """
        prepared = data.translate(self._plain)
        if not self._lowercase or data.isascii():
            return prepared
        mixed, end = bytearray(prepared), 0
        for at in np.flatnonzero(np.frombuffer(data, dtype=np.uint8) >= 0x80).tolist():
            if at >= end:
                start, end = prepared.rfind(b" ", 0, at) + 1, prepared.find(b" ", at)
                end = len(data) if end < 0 else end
                mixed[start:end] = data[start:end]
        return bytes(mixed)

    def _cut(self, text: str) -> list[str]:
        """One text's pieces."""
        if self._lowercase and text.isascii():
            text = text.lower()
        for character in self._white_space:
            text = text.replace(character, " ")
        return (_MARK + text).split(" ")


def _joined(texts: Sequence[str], prefix: str) -> bytes:
    """Texts with a mark before each, UTF-8."""
    text = _MARK + prefix + f" {_MARK}{prefix}".join(texts)
    return text.encode("utf-8", "surrogatepass")


def _in_a_row(blocks: Sequence[FlatIds]) -> FlatIds:
    """Blocks of texts as one."""
    if len(blocks) == 1:
        return blocks[0]
    ids = np.cumsum([0, *(len(block.ids) for block in blocks)])
    rows = np.cumsum([0, *(len(block.indptr) - 1 for block in blocks)])
    return FlatIds(
        np.concatenate([block.ids for block in blocks]),
        np.concatenate(
            [[0], *(block.indptr[1:] + at for block, at in zip(blocks, ids, strict=False))]
        ),
        np.concatenate([block.asked + at for block, at in zip(blocks, rows, strict=False)]),
    )


class _Words(dict[str, bytes]):
    """Words to token ids, int32."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._tokenize = model.tokenize

    def make(self, word: str) -> bytes:
        """A word's ids, not remembered."""
        return _packed([token.id for token in self._tokenize(word)])

    def __missing__(self, word: str) -> bytes:
        ids = self.make(word)
        if len(word) <= MAX_LENGTH:
            if len(self) >= MAX_PIECES:
                self.clear()
            self[word] = ids
        return ids


class _Pieces(dict[str, bytes]):
    """Pieces to token ids, int32; the first piece of a text begins with the mark."""

    def __init__(self, tokenizer: Tokenizer, rules: WordRules, added: Sequence[str]) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._rules = rules
        self.words = _Words(tokenizer.model)
        self._word = self.words.__getitem__
        known = "|".join(map(re.escape, added)) or "(?!)"
        self._added = re.compile(known, re.IGNORECASE).search

    def __missing__(self, piece: str) -> bytes:
        first = piece.startswith(_MARK)
        ids = self._learn(piece[1:] if first else " " + piece)
        if ids is None:
            return _ASK
        self._keep(piece, ids)
        return ids

    def look_up(self, pieces: Sequence[str]) -> list[bytes | None]:
        """Of many at once; None: it has no ids of its own."""
        known, word, make, keep = self.get, self._word, self.words.make, self._keep
        split, lowercase = self._rules.split, self._rules.lowercase
        # Where signs are words of their own, letters and digits between them are one.
        is_word = str.isalnum if self._rules.apart else None
        # No added token has a space: if all together hold none, none does.
        added = self._added(" ".join(pieces)) is not None
        found: list[bytes | None] = []
        for piece in pieces:
            ids = known(piece)
            if ids is None:
                text = piece[1:] if piece.startswith(_MARK) else f" {piece}"
                if added or len(text) < 2 or not text.isascii() or not text.isprintable():
                    ids = self[piece]  # takes a closer look
                else:
                    text = text.lower() if lowercase else text
                    if is_word and is_word(text[1:]) and text[0] == " ":
                        ids = make(text[1:])
                    else:
                        ids = b"".join(map(word, split(text)))
                    keep(piece, ids)
            found.append(None if ids is _ASK else ids)
        return found

    def _keep(self, piece: str, ids: bytes) -> None:
        if len(piece) <= MAX_LENGTH:
            if len(self) >= MAX_PIECES:
                self.clear()
            self[piece] = ids

    def _learn(self, text: str) -> bytes | None:
        """Token ids of a piece, the space before it included; None: they are not its own."""
        rules = self._rules
        if not text.isprintable() or (text == " " and not rules.repeats) or self._added(text):
            return None
        if text.isascii():
            words = rules.split(text.lower() if rules.lowercase else text)
            return b"".join(map(self._word, words))
        if not rules.beyond_ascii or len(text) > MAX_LENGTH:
            return None
        normalizer = self._tokenizer.normalizer
        if normalizer is not None and self._added(normalizer.normalize_str(text)):
            return None
        return _packed(self._tokenizer.encode(text, add_special_tokens=False).ids)


def _packed(ids: list[int]) -> bytes:
    return array("i", ids).tobytes()


def open_word_cache(tokenizer: Tokenizer, settings: Mapping[str, Any]) -> WordCache | None:
    """The fast way of a tokenizer, proved on a sample; None: it has none.

    Args:
        tokenizer: adds nothing, pads and truncates nothing.
        settings: its tokenizer.json.
    """
    rules = word_rules(settings)
    if rules is None or settings["model"].get("dropout"):
        return None
    added = [str(token["content"]) for token in settings.get("added_tokens") or []]
    if tokenizer.normalizer is not None:
        added += [tokenizer.normalizer.normalize_str(content) for content in added]
    # One with a space would lie across pieces.
    if not all(content.isprintable() and content and " " not in content for content in added):
        return None
    cache = WordCache(tokenizer, rules, added)
    return cache if _agrees(cache, tokenizer) else None


def _agrees(cache: WordCache, tokenizer: Tokenizer) -> bool:
    """Whether all give the same ids for the sample: by texts, in a batch, by the tokenizer."""
    try:
        # Not `encode`: so few texts would go one by one a second time.
        batch = cache._encode_block(_PROOF, "")
        asked = set(batch.asked.tolist())
        for row, text in enumerate(_PROOF):
            wanted = tokenizer.encode(text, add_special_tokens=False).ids
            if cache.encode_one(text) not in (None, wanted):
                return False
            found = batch.ids[batch.indptr[row] : batch.indptr[row + 1]].tolist()
            if row not in asked and found != wanted:
                return False
    except Exception:  # the library raises bare Exception
        return False
    return True
