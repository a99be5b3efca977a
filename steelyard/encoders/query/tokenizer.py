"""Texts to token ids, flat: the first half of a look-up.

The tokenizer of a pack adds no special tokens, pads and truncates nothing; lower-casing is part
of its tokenizer.json. Special-token strings inside a text are still recognised as such, as the
official LightRetriever code does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from steelyard.encoders.query.flat_ids import FlatIds
from steelyard.encoders.query.word_cache import WordCache, open_word_cache
from steelyard.errors import PackError


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Token ids of n texts.

    Attributes:
        ids: int32, the rows one after the other, repeats kept, in text order.
        indptr: int64 ``[n + 1]``; row i is ``ids[indptr[i]:indptr[i + 1]]``.
        truncated: bool ``[n]``, True where tokens were cut off.
    """

    ids: NDArray[np.int32]
    indptr: NDArray[np.int64]
    truncated: NDArray[np.bool_]

    def select(self, indices: NDArray[np.int64]) -> TokenRows:
        """The named rows, in the order named."""
        lengths = self.indptr[indices + 1] - self.indptr[indices]
        indptr = _indptr(lengths)
        inside = np.arange(int(indptr[-1])) - np.repeat(indptr[:-1], lengths)
        ids = self.ids[np.repeat(self.indptr[indices], lengths) + inside]
        return TokenRows(ids, indptr, self.truncated[indices])


class PackTokenizer:
    """A pack's tokenizer with one arm's settings.

    Args:
        tokenizer: shared by both arms.
        rows: number of token ids, the largest + 1.
        text_prefix: put before every text.
        max_tokens: longer rows are cut; None cuts nothing.
        ignored_ids: tokens to leave out, after cutting.
        words: the tokenizer's fast way, shared too; None: everything goes through the tokenizer.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        rows: int,
        *,
        text_prefix: str = "",
        max_tokens: int | None = None,
        ignored_ids: Sequence[int] = (),
        words: WordCache | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.text_prefix = text_prefix
        self.max_tokens = max_tokens
        self.keep: NDArray[np.bool_] = np.ones(rows, dtype=np.bool_)
        self.keep[list(ignored_ids)] = False
        self._ignored = frozenset(ignored_ids)
        self.words: Final = words if text_prefix.isascii() and text_prefix.isprintable() else None

    def encode(self, texts: Sequence[str]) -> TokenRows:
        """Token ids of many texts at once."""
        return encode_arms([self], texts)[0]

    def encode_one(self, text: str) -> tuple[list[int], bool]:
        """Token ids of one text, and whether it was cut; skips the batch machinery."""
        text = self.text_prefix + text
        ids = None if self.words is None else self.words.encode_one(text)
        if ids is None:
            try:
                ids = self.tokenizer.encode(text, add_special_tokens=False).ids
            except (TypeError, UnicodeError):
                ids = self.tokenizer.encode(well_formed(text), add_special_tokens=False).ids
        truncated = self.max_tokens is not None and len(ids) > self.max_tokens
        if truncated:
            ids = ids[: self.max_tokens]
        if not self._ignored.isdisjoint(ids):
            ids = [token for token in ids if token not in self._ignored]
        return ids, truncated

    def without_words(self) -> PackTokenizer:
        """The same, everything through the tokenizer itself."""
        return PackTokenizer(
            self.tokenizer,
            len(self.keep),
            text_prefix=self.text_prefix,
            max_tokens=self.max_tokens,
            ignored_ids=sorted(self._ignored),
        )

    def _rows(self, texts: list[str], flat: FlatIds | None) -> TokenRows:
        """From what the fast way found: the rest asked for, cut, ignored tokens left out."""
        ids, indptr = self._ask(texts) if flat is None else self._completed(texts, flat)
        lengths = np.diff(indptr)
        truncated = np.zeros(len(lengths), dtype=np.bool_)
        limit = self.max_tokens
        if limit is not None and lengths.size and int(lengths.max()) > limit:
            truncated = lengths > limit
            inside = np.arange(len(ids)) - np.repeat(indptr[:-1], lengths) < limit
            ids, indptr = _filtered(ids, indptr, inside)
        kept = self.keep.take(ids)
        if not kept.all():
            ids, indptr = _filtered(ids, indptr, kept)
        return TokenRows(ids, indptr, truncated)

    def _completed(
        self, texts: list[str], flat: FlatIds
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The rows that the tokenizer has to make put in their places."""
        if not len(flat.asked):
            return flat.ids, flat.indptr
        asked = flat.asked.tolist()
        ids, indptr = self._ask([texts[row] for row in asked])
        lengths = np.diff(flat.indptr)
        lengths[flat.asked] = np.diff(indptr)
        parts, end = [], 0
        for turn, row in enumerate(asked):
            parts += [flat.ids[end : flat.indptr[row]], ids[indptr[turn] : indptr[turn + 1]]]
            end = flat.indptr[row + 1]
        return np.concatenate([*parts, flat.ids[end:]]), _indptr(lengths)

    def _ask(self, texts: list[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The same by the tokenizer itself."""
        prepared = [self.text_prefix + text for text in texts] if self.text_prefix else texts
        try:
            encodings = self.tokenizer.encode_batch_fast(prepared, add_special_tokens=False)
        except (TypeError, UnicodeError):
            prepared = [well_formed(text) for text in prepared]
            encodings = self.tokenizer.encode_batch_fast(prepared, add_special_tokens=False)
        rows = [encoding.ids for encoding in encodings]
        indptr = _indptr(np.fromiter(map(len, rows), dtype=np.int64, count=len(rows)))
        ids = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=int(indptr[-1]))
        return ids, indptr


def encode_arms(arms: Sequence[PackTokenizer], texts: Sequence[str]) -> list[TokenRows]:
    """Token ids of the same texts by each arm's settings, which share what they have in common.

    Args:
        arms: share one tokenizer and its fast way.
        texts: n texts.
    """
    texts = texts if isinstance(texts, list) else list(texts)
    words = arms[0].words
    flat: Sequence[FlatIds | None] = [None] * len(arms)
    if words is not None and all(arm.words is words for arm in arms):
        # What is no string raises the tokenizer's own error, below.
        with suppress(TypeError, AttributeError):
            flat = words.encode(texts, [arm.text_prefix for arm in arms])
    return [arm._rows(texts, found) for arm, found in zip(arms, flat, strict=True)]


def _indptr(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    indptr = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=indptr[1:])
    return indptr


def _filtered(
    ids: NDArray[np.int32], indptr: NDArray[np.int64], kept: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    before = np.zeros(len(ids) + 1, dtype=np.int64)
    np.cumsum(kept, out=before[1:])
    return ids[kept], before[indptr]


@dataclass(frozen=True, slots=True)
class LoadedTokenizer:
    """A pack's tokenizer, and its fast way if it has one."""

    tokenizer: Tokenizer
    words: WordCache | None


def load_tokenizer(tokenizer_json: str, where: str, rows: int) -> LoadedTokenizer:
    """Read a pack's tokenizer.json and check it against the number of table rows.

    Raises:
        PackError: unreadable, adds tokens of its own, or of another size than the table.
    """
    try:
        tokenizer = Tokenizer.from_str(tokenizer_json)
    except Exception as error:  # the library raises bare Exception
        raise PackError(f"{where}: unreadable tokenizer: {error}", "rebuild the pack") from error
    settings: dict[str, Any] = json.loads(tokenizer_json)
    if tokenizer.padding or tokenizer.truncation or settings.get("post_processor"):
        raise PackError(
            f"{where}: the tokenizer pads, truncates or adds special tokens", "rebuild the pack"
        )
    size = tokenizer.get_vocab_size()
    if size > rows or tokenizer.id_to_token(rows) or not tokenizer.id_to_token(rows - 1):
        raise PackError(
            f"{where}: the table has {rows:,} rows, the tokenizer {size:,} tokens",
            "rebuild the pack",
        )
    return LoadedTokenizer(tokenizer, open_word_cache(tokenizer, settings))


def well_formed(text: str) -> str:
    """Lone surrogates cannot be UTF-8: they become U+FFFD."""
    if not isinstance(text, str):
        raise TypeError(f"a query is a string, not {type(text).__name__}")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
