"""Texts to token ids, flat: the first half of a look-up.

The tokenizer of a pack adds no special tokens, pads and truncates nothing; lower-casing is part
of its tokenizer.json. Special-token strings inside a text are still recognised as such, as the
official LightRetriever code does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

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
        indptr = np.zeros(len(indices) + 1, dtype=np.int64)
        np.cumsum(lengths, out=indptr[1:])
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
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        rows: int,
        *,
        text_prefix: str = "",
        max_tokens: int | None = None,
        ignored_ids: Sequence[int] = (),
    ) -> None:
        self.tokenizer = tokenizer
        self.text_prefix = text_prefix
        self.max_tokens = max_tokens
        self.keep: NDArray[np.bool_] = np.ones(rows, dtype=np.bool_)
        self.keep[list(ignored_ids)] = False
        self._ignored = frozenset(ignored_ids)

    def encode(self, texts: Sequence[str]) -> TokenRows:
        """Token ids of many texts at once."""
        prepared = [self.text_prefix + text for text in texts] if self.text_prefix else list(texts)
        try:
            encodings = self.tokenizer.encode_batch_fast(prepared, add_special_tokens=False)
        except (TypeError, UnicodeError):
            prepared = [well_formed(text) for text in prepared]
            encodings = self.tokenizer.encode_batch_fast(prepared, add_special_tokens=False)
        rows = [encoding.ids for encoding in encodings]
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        truncated = np.zeros(len(rows), dtype=np.bool_)
        limit = self.max_tokens
        if limit is not None and lengths.size and int(lengths.max()) > limit:
            truncated = lengths > limit
            rows = [row[:limit] for row in rows]
            lengths = np.minimum(lengths, limit)
        indptr = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=indptr[1:])
        ids = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=int(indptr[-1]))
        kept = self.keep[ids]
        if not kept.all():
            before = np.zeros(len(ids) + 1, dtype=np.int64)
            np.cumsum(kept, out=before[1:])
            ids, indptr = ids[kept], before[indptr]
        return TokenRows(ids, indptr, truncated)

    def encode_one(self, text: str) -> tuple[list[int], bool]:
        """Token ids of one text, and whether it was cut; skips the batch machinery."""
        try:
            ids: list[int] = self.tokenizer.encode(
                self.text_prefix + text, add_special_tokens=False
            ).ids
        except (TypeError, UnicodeError):
            prepared = well_formed(self.text_prefix + text)
            ids = self.tokenizer.encode(prepared, add_special_tokens=False).ids
        truncated = self.max_tokens is not None and len(ids) > self.max_tokens
        if truncated:
            ids = ids[: self.max_tokens]
        if not self._ignored.isdisjoint(ids):
            ids = [token for token in ids if token not in self._ignored]
        return ids, truncated


def load_tokenizer(tokenizer_json: str, where: str, rows: int) -> Tokenizer:
    """Read a pack's tokenizer.json and check it against the number of table rows.

    Raises:
        PackError: unreadable, adds tokens of its own, or of another size than the table.
    """
    try:
        tokenizer = Tokenizer.from_str(tokenizer_json)
    except Exception as error:  # the library raises bare Exception
        raise PackError(f"{where}: unreadable tokenizer: {error}", "rebuild the pack") from error
    if (
        tokenizer.padding
        or tokenizer.truncation
        or json.loads(tokenizer_json).get("post_processor")
    ):
        raise PackError(
            f"{where}: the tokenizer pads, truncates or adds special tokens", "rebuild the pack"
        )
    size = tokenizer.get_vocab_size()
    if size > rows or tokenizer.id_to_token(rows) or not tokenizer.id_to_token(rows - 1):
        raise PackError(
            f"{where}: the table has {rows:,} rows, the tokenizer {size:,} tokens",
            "rebuild the pack",
        )
    return tokenizer


def well_formed(text: str) -> str:
    """Lone surrogates cannot be UTF-8: they become U+FFFD."""
    if not isinstance(text, str):
        raise TypeError(f"a query is a string, not {type(text).__name__}")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
