"""Token ids by piece of text, remembered: a text is tokenised by looking its pieces up.

A piece is what stands between two spaces, or less where the tokenizer is sure to cut. It is learnt
once, word by word (``learnt_pieces``); from then on one text is a split at its spaces and a
dictionary look-up a piece, and many texts are a few calls on arrays (``cutters``,
``piece_table``). What the fast way does not know for certain is left to the tokenizer: texts with
characters that cannot be printed or an added token; where runs of spaces are tokens also those
that hold one, unless they come in a batch; and tokenizers of another make (``words``).
"""

from __future__ import annotations

import re
import string
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from steelyard.encoders.query.cutters import SPACE, Cutter, with_spaces, without_spaces
from steelyard.encoders.query.flat_ids import FlatIds, in_a_row, spliced
from steelyard.encoders.query.learnt_pieces import ASK, LearntPieces
from steelyard.encoders.query.piece_table import Pieces, PieceTable, TableState
from steelyard.encoders.query.words import WordRules, word_rules

MAX_PIECES = 1 << 17
"""Pieces that are remembered, by text and in the table; then all are forgotten and learnt anew."""

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

_LETTER_BY_DIGIT = re.compile("[A-Za-z][0-9]|[0-9][A-Za-z]")

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

_PROOF_PREFIXES = ("", "q: ")


@dataclass(frozen=True, slots=True)
class Known:
    """What a cache remembers, copied: pieces by text, and those that batches brought."""

    pieces: dict[str, bytes]
    in_table: TableState


@dataclass(frozen=True, slots=True)
class _Cut:
    """Texts with marks before them.

    Attributes:
        pieces: of all texts; ``marks``: int64 ``[n]``, which of them are marks.
        indptr: int64 ``[pieces + 1]``, where each piece's ids begin.
        rows: ids of the texts.
    """

    pieces: Pieces
    marks: NDArray[np.int64]
    indptr: NDArray[np.int64]
    rows: FlatIds


class WordCache:
    """The fast way of one tokenizer; safe to use from many threads.

    Args:
        tokenizer: whose ids these are.
        rules: how it cuts.
        added: its added tokens as it looks for them, in whatever case.
        limit: of the pieces that are remembered; then all are forgotten and learnt anew.
    """

    def __init__(
        self, tokenizer: Tokenizer, rules: WordRules, added: Sequence[str], limit: int
    ) -> None:
        self._rules = rules
        self._pieces = LearntPieces(tokenizer, rules, added, limit)
        self._look_up: Callable[[str], bytes] = self._pieces.__getitem__
        self._table = PieceTable(limit)
        self._cutter = _cutter(rules, added)
        white = rules.white_space.encode("ascii")
        plain = bytes.maketrans(white, b" " * len(white))
        self._plain = plain.lower() if rules.lowercase else plain
        self._is_plain = self._plain == bytes(range(256))

    def encode_one(self, text: str) -> list[int] | None:
        """Token ids of a text; None: ask the tokenizer."""
        found = self._found(text)
        return None if ASK in found else array("i", found).tolist()

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
        blocks = [
            self._encode_block(texts[i : i + _BLOCK], prefixes)
            for i in range(0, len(texts), _BLOCK)
        ]
        return [in_a_row(one_prefix) for one_prefix in zip(*blocks, strict=True)]

    def __len__(self) -> int:
        """Pieces that are remembered."""
        return len(self._pieces)

    def hit_rate(self, texts: Sequence[str]) -> float:
        """Share of these texts' pieces that batches have taught; learns nothing."""
        pieces = self._pieces_of(self._joined(texts, ""))
        known = np.delete(self._table.knows(pieces), pieces.begins(_MARK_BYTE))
        return float(known.mean()) if len(known) else 0.0

    def known(self) -> Known:
        """What is remembered now, for ``remember``; benchmarks compare from one state."""
        return Known(dict(self._pieces), self._table.known())

    def remember(self, known: Known) -> None:
        """Forget everything but this, which the same cache knew before."""
        self._pieces.clear()
        self._pieces.update(known.pieces)
        self._table.remember(known.in_table)

    def forget(self) -> None:
        """Begin anew."""
        self._pieces.clear()
        self._table.clear()

    def _pieces_of(self, data: bytes) -> Pieces:
        return Pieces.cut(self._prepared(data), self._cutter)

    def _learn(self, pieces: Sequence[str]) -> list[bytes | None]:
        """As the table asks for it; the mark stands for nothing."""
        found = self._pieces.look_up(pieces)
        if _MARK in pieces:
            found[pieces.index(_MARK)] = b""
        return found

    def _found(self, text: str) -> bytes:
        """Token ids of a text, with ASK among them if the tokenizer has to be asked."""
        leading = self._rules.leading
        if leading and text and text[0] not in leading:
            text = " " + text
        if _MARK in text or (self._rules.runs and "  " in text):
            return ASK
        return b"".join(map(self._look_up, self._cut(text)))

    def _encode_few(self, texts: Sequence[str], prefix: str) -> FlatIds:
        rows = [self._found(prefix + text) for text in texts]
        asked = [row for row, ids in enumerate(rows) if ASK in ids]
        for row in asked:
            rows[row] = b""
        indptr = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(ids) // len(ASK) for ids in rows], out=indptr[1:])
        ids = np.frombuffer(b"".join(rows), dtype=np.int32)
        return FlatIds(ids, indptr, np.array(asked, dtype=np.int64))

    def _encode_block(self, texts: Sequence[str], prefixes: Sequence[str]) -> list[FlatIds]:
        """One block of texts, with each prefix.

        With another prefix only a text's head, up to its first space, is cut and looked up anew.
        """
        first, *others = prefixes
        data = self._joined(texts, first)
        if data.count(_MARK_BYTE) != len(texts) or 0 in data:
            texts = [_NOT_KNOWN if _MARK in text or _NUL in text else text for text in texts]
            data = self._joined(texts, first)
        cut = self._encode_marked(data)
        rows = {first: cut.rows}
        if others and not self._rules.leading:  # where a text begins would differ with a prefix
            tails = cut.indptr[_tail_pieces(data, cut, len(first))]
            # As ``_tail_pieces`` has it, a text that begins with a space is all head.
            heads = [text.partition(" ")[0] or text for text in texts]
            for prefix in set(others) - {first}:
                of_heads = self._encode_marked(self._joined(heads, prefix)).rows
                rows[prefix] = spliced(of_heads, cut.rows, tails)
        for prefix in prefixes:
            if prefix not in rows:
                rows[prefix] = self._encode_marked(self._joined(texts, prefix)).rows
        return [rows[prefix] for prefix in prefixes]

    def _encode_marked(self, data: bytes) -> _Cut:
        pieces = self._pieces_of(data)
        ids, indptr, refused = self._table.encode(pieces, self._learn)
        marks = pieces.begins(_MARK_BYTE)
        asked = np.unique(np.searchsorted(marks, refused, side="right") - 1)
        rows = FlatIds(ids, np.append(indptr[marks], indptr[-1]), asked)
        return _Cut(pieces, marks, indptr, rows)

    def _joined(self, texts: Sequence[str], prefix: str) -> bytes:
        """Texts with a mark and the prefix before each."""
        leading = self._rules.leading
        if leading and prefix and prefix[0] not in leading:
            prefix = " " + prefix
        elif leading and not prefix:
            texts = [f" {text}" if text and text[0] not in leading else text for text in texts]
        return _marked(texts, prefix)

    def _prepared(self, data: bytes) -> bytes:
        """White space as spaces, ASCII in lower case; the length stays.

        What stands between two spaces is lower-cased only if all of it is ASCII: there Python
        and the tokenizer agree what that is.
        """
        if self._is_plain:
            return data
        prepared = data.translate(self._plain)
        if not self._rules.lowercase or data.isascii():
            return prepared
        mixed, end = bytearray(prepared), 0
        for at in np.flatnonzero(np.frombuffer(data, dtype=np.uint8) >= 0x80).tolist():
            if at >= end:
                start, end = prepared.rfind(b" ", 0, at) + 1, prepared.find(b" ", at)
                end = len(data) if end < 0 else end
                mixed[start:end] = data[start:end]
        return bytes(mixed)

    def _cut(self, text: str) -> list[str]:
        """One text's pieces; those that a batch is cut into are parts of them."""
        if self._rules.lowercase and text.isascii():
            text = text.lower()
        if not self._rules.drops_spaces:
            return text.replace(" ", f"{_MARK} ").split(_MARK)
        for character in self._rules.white_space:
            text = text.replace(character, " ")
        return text.split(" ")


def _cutter(rules: WordRules, added: Sequence[str]) -> Cutter:
    """Cuts pieces where the rules allow, but no added token."""
    held = set().union(*added)
    if rules.drops_spaces:
        return without_spaces("".join(c for c in rules.apart if c not in held) + _MARK)
    if rules.joined is None:
        return with_spaces(_MARK, runs=rules.runs)
    joined = rules.joined + "".join(c for c in string.punctuation if c in held)
    if any(map(_LETTER_BY_DIGIT.search, added)):
        joined += string.digits
    return with_spaces(_MARK, joined, signs_lead=rules.signs_lead, runs=rules.runs)


def _marked(texts: Sequence[str], prefix: str = "") -> bytes:
    """Texts with a mark and the prefix before each, UTF-8."""
    before = _MARK + prefix
    return (before + before.join(texts)).encode("utf-8", "surrogatepass")


def _tail_pieces(data: bytes, cut: _Cut, prefix_bytes: int) -> NDArray[np.int64]:
    """Of each text, the first piece at or behind its first space; the end if it begins with one.

    Args:
        data: the texts as they were joined.
        cut: the same, cut.
        prefix_bytes: length of the prefix before each text.
    """
    found = np.frombuffer(data + _MARK.encode(), dtype=np.uint8)
    marks = cut.pieces.starts[cut.marks]
    starts, ends = marks + 1 + prefix_bytes, np.append(marks[1:], len(data))
    spaces = np.append(np.flatnonzero(found == SPACE), len(data))
    at = np.minimum(spaces[np.searchsorted(spaces, starts)], ends)
    at = np.where(found[starts] == SPACE, ends, at)
    pieces: NDArray[np.int64] = np.searchsorted(cut.pieces.starts, at)
    return pieces


def open_word_cache(
    tokenizer: Tokenizer, settings: Mapping[str, Any], limit: int = MAX_PIECES
) -> WordCache | None:
    """The fast way of a tokenizer, proved on a sample; None: it has none.

    Args:
        tokenizer: adds nothing, pads and truncates nothing.
        settings: its tokenizer.json.
        limit: of the pieces that are remembered.
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
    cache = WordCache(tokenizer, rules, added, limit)
    return cache if _agrees(cache, tokenizer) else None


def _agrees(cache: WordCache, tokenizer: Tokenizer) -> bool:
    """Whether all give the same ids for the sample: by texts, in a batch, by the tokenizer."""
    try:
        # Not `encode`: so few texts would go one by one a second time.
        batches = cache._encode_block(_PROOF, _PROOF_PREFIXES)
        for prefix, batch in zip(_PROOF_PREFIXES, batches, strict=True):
            asked = set(batch.asked.tolist())
            for row, text in enumerate(_PROOF):
                wanted = tokenizer.encode(prefix + text, add_special_tokens=False).ids
                if cache.encode_one(prefix + text) not in (None, wanted):
                    return False
                found = batch.ids[batch.indptr[row] : batch.indptr[row + 1]].tolist()
                if row not in asked and found != wanted:
                    return False
    except Exception:  # the library raises bare Exception
        return False
    return True
