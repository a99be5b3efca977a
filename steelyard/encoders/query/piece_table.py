"""Pieces of text to token ids, many at once: a hash table in NumPy arrays.

A dictionary costs a string object and four visits to memory a piece; here all pieces of a batch
are cut, hashed, compared and copied by a few calls on whole arrays. A piece of up to 16 bytes is
its own key, two 64-bit numbers, so that comparing keys is comparing texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import RLock
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

KEY_BYTES = 16
"""Longer pieces have no key; they come once."""

_SPACE = 0x20
_GAP, _WORD, _APART = range(3)
_EMPTY_PIECE = np.uint64(_SPACE)
"""Key of a piece of no bytes: no piece has a space. 0 is the key of an empty slot."""

_LOW_BYTES = np.array([(1 << 8 * count) - 1 for count in range(9)], dtype=np.uint64)
_MULTIPLIERS = tuple(map(np.uint64, (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xD6E8FEB86659FD93)))
_FIRST_BITS = 12
_ID_BYTES = 4

_IDS = 16
"""Of a piece, at most on average; of those without a key, ids stay behind when they are gone."""


Cutter: TypeAlias = Callable[[NDArray[np.uint8]], tuple[NDArray[np.int64], NDArray[np.int64]]]
"""Bytes of a text to where its pieces start and end."""

Learn: TypeAlias = Callable[[Sequence[str]], Sequence[bytes | None]]


def at_spaces(data: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What stands between two spaces, also nothing."""
    spaces = np.flatnonzero(data == _SPACE)
    return np.concatenate(([0], spaces + 1)), np.append(spaces, len(data))


def at_spaces_and(apart: str) -> Cutter:
    """What stands between two spaces, cut before and after each of some ASCII characters."""
    kinds = np.full(256, _WORD, dtype=np.uint8)
    kinds[_SPACE] = _GAP
    kinds[list(apart.encode("ascii"))] = _APART

    def cut(data: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        kind = kinds[data]
        inside = np.zeros(len(kind) + 1, dtype=np.bool_)  # whether a word goes on here
        inside[1:-1] = (kind[1:] == _WORD) & (kind[:-1] == _WORD)
        there = kind != _GAP
        return np.flatnonzero(there & ~inside[:-1]), np.flatnonzero(there & ~inside[1:]) + 1

    return cut


@dataclass(frozen=True, slots=True)
class Pieces:
    """A text cut up.

    Attributes:
        data: the text's bytes, UTF-8.
        starts, ends: int64 ``[n]``, of each piece.
        first, second: uint64 ``[n]``, bytes 0 to 7 and 8 to 15, zeros behind a piece's end. What
            they hold for longer pieces means nothing.
    """

    data: bytes
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    first: NDArray[np.uint64]
    second: NDArray[np.uint64]

    @classmethod
    def cut(cls, text: str, cutter: Cutter) -> Pieces:
        """Cut a text."""
        data = text.encode("utf-8", "surrogatepass")
        padded = data + bytes(KEY_BYTES)
        starts, ends = cutter(np.frombuffer(data, dtype=np.uint8))
        # At each byte the number that begins there.
        numbers: NDArray[np.uint64] = np.ndarray(
            (len(padded) - 7,), dtype="<u8", buffer=padded, strides=(1,)
        )
        lengths = ends - starts
        first = numbers[starts] & _LOW_BYTES[np.minimum(lengths, 8)]
        second = numbers[starts + 8] & _LOW_BYTES[np.clip(lengths - 8, 0, 8)]
        first[first == 0] = _EMPTY_PIECE
        return cls(data, starts, ends, first, second)

    def begins(self, byte: int) -> NDArray[np.int64]:
        """The pieces that begin with this byte."""
        at = np.frombuffer(self.data + bytes(1), dtype=np.uint8)[self.starts]
        return np.flatnonzero((at == byte) & (self.starts < self.ends))

    def __len__(self) -> int:
        return len(self.starts)

    def has_key(self, which: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether these pieces are short enough."""
        short: NDArray[np.bool_] = self.ends[which] - self.starts[which] <= KEY_BYTES
        return short

    def without_key(self) -> NDArray[np.int64]:
        """The pieces that are too long."""
        return np.flatnonzero(self.ends - self.starts > KEY_BYTES)

    def texts(self, which: NDArray[np.int64]) -> list[str]:
        """These pieces as strings."""
        spans = zip(self.starts[which].tolist(), self.ends[which].tolist(), strict=True)
        return [self.data[start:end].decode("utf-8", "surrogatepass") for start, end in spans]


@dataclass(slots=True)
class _Slots:
    """Open addressing: a piece is at its hash or, if that is taken, in the next free slot.

    Attributes:
        first, second: uint64 ``[2^bits]``, the keys.
        begin, count: int32 ``[2^bits]``, where its token ids are.
    """

    first: NDArray[np.uint64]
    second: NDArray[np.uint64]
    begin: NDArray[np.int32]
    count: NDArray[np.int32]

    @classmethod
    def empty(cls, bits: int) -> _Slots:
        count = 1 << bits
        return cls(
            np.zeros(count, dtype=np.uint64),
            np.zeros(count, dtype=np.uint64),
            np.zeros(count, dtype=np.int32),
            np.zeros(count, dtype=np.int32),
        )

    def __len__(self) -> int:
        return len(self.first)

    def parts(self) -> tuple[NDArray[Any], ...]:
        """What ``put`` takes."""
        return self.first, self.second, self.begin, self.count

    def hashed(self, first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.int64]:
        one, two, three = _MULTIPLIERS
        mixed = first * one ^ second * two
        mixed ^= mixed >> np.uint64(32)
        mixed *= three
        bits = len(self).bit_length() - 1
        return (mixed >> np.uint64(64 - bits)).astype(np.int64)

    def find(self, first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The slot of each key; -1: not there."""
        slots = self.hashed(first, second)
        there = self.first[slots]
        found = (there == first) & (self.second[slots] == second)
        rest = np.flatnonzero(~found)
        at = slots[rest]
        taken = there[rest] != 0
        slots[rest[~taken]] = -1
        rest, at = rest[taken], at[taken]
        while len(rest):
            at = (at + 1) & (len(self) - 1)
            there = self.first[at]
            found = (there == first[rest]) & (self.second[at] == second[rest])
            slots[rest[found]] = at[found]
            slots[rest[there == 0]] = -1
            on = ~found & (there != 0)
            rest, at = rest[on], at[on]
        return slots

    def put(
        self,
        first: NDArray[np.uint64],
        second: NDArray[np.uint64],
        begin: NDArray[np.integer[Any]],
        count: NDArray[np.integer[Any]],
    ) -> None:
        """Add keys that differ and are not there; there must be room."""
        at, rest = self.hashed(first, second), np.arange(len(first))
        while len(rest):
            # Of several that want one free slot, the last to sign there gets it.
            free = self.first[at] == 0
            wanted, who = at[free], np.flatnonzero(free)
            self.begin[wanted] = who
            placed = who[self.begin[wanted] == who]
            which, where = rest[placed], at[placed]
            self.first[where], self.second[where] = first[which], second[which]
            self.begin[where], self.count[where] = begin[which], count[which]
            on = np.ones(len(rest), dtype=np.bool_)
            on[placed] = False
            rest, at = rest[on], (at[on] + 1) & (len(self) - 1)


class PieceTable:
    """Token ids of pieces, bounded; safe to use from many threads.

    Args:
        limit: of pieces; after a batch that brought more, all are forgotten and learnt anew.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = RLock()
        self.clear()

    def __len__(self) -> int:
        """Pieces that are known."""
        return self._known

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._slots = _Slots.empty(_FIRST_BITS)
            self._pool = np.empty(1 << _FIRST_BITS, dtype=np.int32)
            self._used = self._known = 0

    def encode(
        self, pieces: Pieces, learn: Learn
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """Token ids of pieces, one after the other.

        Args:
            pieces: n of them.
            learn: gives the ids, int32, of those not known; None: it has none of its own.

        Returns:
            ids int32; counts int64 ``[n]``; the pieces that have none of their own, ascending.
        """
        with self._lock:
            slots = self._slots.find(pieces.first, pieces.second)
            slots[pieces.without_key()] = -1
            begin, counts = self._slots.begin[slots], self._slots.count[slots].astype(np.int64)
            unknown = np.flatnonzero(slots < 0)
            refused = unknown[:0]
            if len(unknown):
                begin[unknown], counts[unknown] = self._learn(pieces, unknown, learn)
                refused = unknown[counts[unknown] < 0]
                counts[refused] = 0
            inside = np.repeat(begin - (np.cumsum(counts) - counts), counts)
            inside += np.arange(len(inside))
            found = self._pool[inside]
            # After, for a batch repeats pieces; a giant one leaves nothing behind.
            if self._known > self._limit or self._used > _IDS * self._limit:
                self.clear()
            return found, counts, refused

    def knows(self, pieces: Pieces) -> NDArray[np.bool_]:
        """Which pieces it holds."""
        with self._lock:
            slots = self._slots.find(pieces.first, pieces.second)
        slots[pieces.without_key()] = -1
        known: NDArray[np.bool_] = slots >= 0
        return known

    def _learn(
        self, pieces: Pieces, unknown: NDArray[np.int64], learn: Learn
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Where the ids of these pieces are now, and how many; -1: none of their own."""
        texts = pieces.texts(unknown)
        place = {text: at for at, text in enumerate(dict.fromkeys(texts))}
        found = learn(list(place))
        written = [ids or b"" for ids in found]
        counts = np.fromiter(map(len, written), np.int64, len(written)) // _ID_BYTES
        begin = self._write(b"".join(written)) + np.cumsum(counts) - counts
        none = np.fromiter((ids is None for ids in found), np.bool_, len(found))
        back = np.fromiter(map(place.__getitem__, texts), np.int64, len(texts))
        of = np.empty(len(found), dtype=np.int64)
        of[back] = unknown
        kept = np.flatnonzero(~none & pieces.has_key(of))
        self._put(pieces.first[of[kept]], pieces.second[of[kept]], begin[kept], counts[kept])
        counts[none] = -1
        return begin[back].astype(np.int32), counts[back]

    def _write(self, ids: bytes) -> int:
        """Where these ids are now in the pool."""
        at, values = self._used, np.frombuffer(ids, dtype=np.int32)
        self._used += len(values)
        if self._used > len(self._pool):
            grown = np.empty(2 * self._used, dtype=np.int32)
            grown[:at] = self._pool[:at]
            self._pool = grown
        self._pool[at : self._used] = values
        return at

    def _put(
        self,
        first: NDArray[np.uint64],
        second: NDArray[np.uint64],
        begin: NDArray[np.int64],
        count: NDArray[np.int64],
    ) -> None:
        """Remember new pieces; half of the slots stay free."""
        self._known += len(first)
        if 2 * self._known > len(self._slots):
            old, taken = self._slots, np.flatnonzero(self._slots.first)
            self._slots = _Slots.empty((2 * self._known).bit_length() + 1)
            self._slots.put(*(part[taken] for part in old.parts()))
        self._slots.put(first, second, begin, count)
