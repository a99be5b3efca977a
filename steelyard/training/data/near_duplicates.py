"""Texts that were there before, word for word or nearly.

Nearly: the Jaccard similarity of their sets of word shingles, estimated by MinHash (Broder, 1997)
and found by locality-sensitive hashing in bands. With 8 bands of 8 rows a text of similarity 0.9
is looked at with a chance of 99 %, one of 0.8 with 77 %, one of 0.5 with 3 %; what is looked at
is compared by all 64 components.
"""

from __future__ import annotations

import re
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from steelyard.indexer.reading.seen_ids import SeenIds

BANDS, ROWS = 8, 8
THRESHOLD = 0.8

_WORD = re.compile(r"\w+")
_rng = np.random.Generator(np.random.PCG64(8191))
_FACTORS = _rng.integers(0, 2**64, BANDS * ROWS, dtype=np.uint64) | np.uint64(1)
_TERMS = _rng.integers(0, 2**64, BANDS * ROWS, dtype=np.uint64)


class SeenTexts:
    """A set of texts that also knows near duplicates: about 600 bytes a text.

    Args:
        shingle: words in a shingle: 3 for documents, 1 for queries.
        threshold: Jaccard similarity from which two texts are the same; over 1 compares word for
            word only.
    """

    def __init__(self, shingle: int = 3, threshold: float = THRESHOLD) -> None:
        self._shingle, self._threshold = shingle, threshold
        self._exact, self._bands = SeenIds(), SeenIds()
        self._signatures: list[NDArray[np.uint32]] = []

    def add(self, text: str) -> str:
        """Note a text that is new.

        Case, punctuation and white space make no difference.

        Returns:
            Empty when it is new; else ``exact`` or ``near``, and it is not noted.
        """
        seen = _Looked(text, self._shingle if self._threshold <= 1 else 0)
        if found := self._find(seen):
            return found
        if seen.signature is not None:
            self._signatures.append(seen.signature)
            for key in seen.keys:
                self._bands.add(key, len(self._signatures))
        self._exact.add(seen.same, 1)
        return ""

    def find(self, text: str) -> str:
        """As ``add``, without noting it."""
        return self._find(_Looked(text, self._shingle if self._threshold <= 1 else 0))

    def _find(self, seen: _Looked) -> str:
        if self._exact.get(seen.same):
            return "exact"
        if seen.signature is not None and self._is_near(seen.signature, seen.keys):
            return "near"
        return ""

    def _is_near(self, signature: NDArray[np.uint32], keys: list[str]) -> bool:
        numbers = {number for key in keys if (number := self._bands.get(key))}
        return any(
            float(np.mean(self._signatures[number - 1] == signature)) >= self._threshold
            for number in numbers
        )


class _Looked:
    """A text as it is compared.

    Args:
        text: the text.
        shingle: 0 compares word for word only.
    """

    def __init__(self, text: str, shingle: int) -> None:
        words = _WORD.findall(text.casefold())
        self.same = " ".join(words) or text.strip()
        self.signature = min_hash(words, shingle) if words and shingle else None
        self.keys: list[str] = []
        if self.signature is not None:
            bands = self.signature.reshape(BANDS, ROWS)
            self.keys = [f"{i}:{band.tobytes().hex()}" for i, band in enumerate(bands)]


def min_hash(words: list[str], shingle: int) -> NDArray[np.uint32]:
    """Signature uint32 ``[64]``: the share of equal components estimates the similarity."""
    size = min(shingle, len(words))
    shingles = {" ".join(words[i : i + size]) for i in range(len(words) - size + 1)}
    hashes = np.array([_hash(one) for one in shingles], dtype=np.uint64)
    # Multiply-shift: products wrap at 2^64, the upper half is kept.
    mixed = (hashes[:, None] * _FACTORS + _TERMS) >> np.uint64(32)
    signature: NDArray[np.uint32] = mixed.min(axis=0).astype(np.uint32)
    return signature


def _hash(shingle: str) -> int:
    digest = blake2b(shingle.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
