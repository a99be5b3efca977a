"""Token ids by piece of text, remembered: a text is tokenised by looking its pieces up.

A piece is what stands between two spaces. It is learnt once, word by word; from then on a text
is a split at its spaces and one dictionary look-up a piece. What the fast way does not know for
certain is left to the tokenizer: texts with characters that cannot be printed, an added token, or
a run of spaces where such runs are tokens; and tokenizers of another make (``words``).
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

from steelyard.encoders.query.words import WordRules, word_rules

MAX_PIECES = 1 << 17
"""Pieces, and words, that are remembered; then all are forgotten and learnt anew."""

MAX_LENGTH = 48
"""Characters of a piece that is remembered: longer ones come once."""

_BLOCK = 1024
"""Texts that are split at once."""

_MARK = "\0"
"""Before the first character of a text. Texts that hold it are left to the tokenizer."""

_NOT_KNOWN = "\1"
"""Stands for such a text: a piece that no text on the fast way has."""

_BEGIN = array("i", [-1]).tobytes()
_ASK = array("i", [-2]).tobytes()
"""Among the ids: a text begins; the tokenizer is to be asked."""

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

    def encode_one(self, text: str) -> list[int] | None:
        """Token ids of a text; None: ask the tokenizer."""
        if _MARK in text:
            return None
        found = b"".join(map(self._look_up, self._cut(text)))
        return None if _ASK in found else array("i", found[len(_BEGIN) :]).tolist()

    def encode(self, texts: Sequence[str], prefixes: Sequence[str] = ("",)) -> list[FlatIds]:
        """Token ids of many texts, once with each prefix before them.

        Args:
            texts: n texts.
            prefixes: printable ASCII. Texts are split once for all of them.

        Raises:
            TypeError, AttributeError: a text is no string.
        """
        blocks = [
            self._encode_block(texts[i : i + _BLOCK], prefixes)
            for i in range(0, len(texts), _BLOCK)
        ]
        return [
            _flat(b"".join(block[which] for block in blocks), len(texts))
            for which in range(len(prefixes))
        ]

    def __len__(self) -> int:
        """Pieces that are remembered."""
        return len(self._pieces)

    def hit_rate(self, texts: Sequence[str]) -> float:
        """Share of these texts' pieces that is remembered; learns nothing."""
        pieces = [piece for text in texts for piece in self._cut(text)]
        return sum(piece in self._pieces for piece in pieces) / max(len(pieces), 1)

    def known(self) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """What is remembered now, for ``remember``; benchmarks compare from one state."""
        return dict(self._pieces), dict(self._pieces.words)

    def remember(self, known: tuple[dict[str, bytes], dict[str, bytes]]) -> None:
        """Forget everything but this, which the same cache knew before."""
        for now, then in zip((self._pieces, self._pieces.words), known, strict=True):
            now.clear()
            now.update(then)

    def _encode_block(self, texts: Sequence[str], prefixes: Sequence[str]) -> list[bytes]:
        if self._lowercase:
            # Only ASCII, where Python and the tokenizer agree what that is.
            texts = [text.lower() if text.isascii() else text for text in texts]
        joined = _MARK + f" {_MARK}".join(texts)
        if joined.count(_MARK) != len(texts):
            texts = [_NOT_KNOWN if _MARK in text else text for text in texts]
            joined = _MARK + f" {_MARK}".join(texts)
        joined = self._spaced(joined)
        pieces = joined.split(" ")
        ids = list(map(self._look_up, pieces))
        return [b"".join(self._prefixed(prefix, joined, pieces, ids)) for prefix in prefixes]

    def _prefixed(
        self, prefix: str, joined: str, pieces: list[str], ids: list[bytes]
    ) -> list[bytes]:
        """A prefix changes the ids of the first piece of each text and no others."""
        if not prefix:
            return ids
        *head, tail = self._spaced(_MARK + prefix).split(" ")
        before = b"".join(map(self._look_up, head))
        changed, first = ids.copy(), 0
        for text in joined.split(_MARK)[1:]:
            changed[first] = before + self._look_up(tail + pieces[first][1:])
            first += text.count(" ")
        return changed

    def _cut(self, text: str) -> list[str]:
        """One text's pieces."""
        if self._lowercase and text.isascii():
            text = text.lower()
        return self._spaced(_MARK + text).split(" ")

    def _spaced(self, text: str) -> str:
        for character in self._white_space:
            text = text.replace(character, " ")
        return text


def _flat(found: bytes, count: int) -> FlatIds:
    """Ids of so many texts, taken apart from the marks among them."""
    ids = np.frombuffer(found, dtype=np.int32)
    begins = np.flatnonzero(ids == -1)
    indptr = np.append(begins, len(ids)) - np.arange(count + 1)
    asked = np.flatnonzero(ids == -2)
    if len(asked):
        indptr -= np.searchsorted(asked, np.append(begins, len(ids)))
        asked = np.unique(np.searchsorted(begins, asked) - 1)
    return FlatIds(ids[ids >= 0], indptr, asked)


class _Words(dict[str, bytes]):
    """Words to token ids, int32."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._tokenize = model.tokenize

    def __missing__(self, word: str) -> bytes:
        ids = _packed([token.id for token in self._tokenize(word)])
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
        self._added = re.compile("|".join(map(re.escape, added)) or "(?!)", re.IGNORECASE).search

    def __missing__(self, piece: str) -> bytes:
        first = piece.startswith(_MARK)
        ids = self._learn(piece[1:] if first else " " + piece)
        value = (_BEGIN if first else b"") + (_ASK if ids is None else ids)
        if ids is not None and len(piece) <= MAX_LENGTH:
            if len(self) >= MAX_PIECES:
                self.clear()
            self[piece] = value
        return value

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
    """Whether both give the same ids for the sample."""
    try:
        for text in _PROOF:
            ids = cache.encode_one(text)
            if ids is not None and ids != tokenizer.encode(text, add_special_tokens=False).ids:
                return False
    except Exception:  # the library raises bare Exception
        return False
    return True
