"""Pieces of text to token ids, many at once: a hash table in NumPy arrays.

A dictionary costs a string object and four visits to memory a piece; here all pieces of a batch
are cut, hashed, compared and copied by a few calls on whole arrays. A piece of up to 16 bytes is
its own key, two 64-bit numbers, so that comparing keys is comparing texts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import RLock
from typing import TypeAlias
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.query.cutters import SPACE, Cutter

KEY_BYTES = 16
"""Longer pieces have no key; they come once."""

_SPACED = np.uint64(0x80)
"""In the key of a piece with a space before it, which the key leaves out: the first byte's highest
bit is the other way round. No other text in UTF-8 begins so: a byte with that bit stands before
one that has it too, any other before none that goes on with a character."""

_LOW_BYTES = np.array([(1 << 8 * count) - 1 for count in range(9)], dtype=np.uint64)
_MULTIPLIERS = tuple(map(np.uint64, (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xD6E8FEB86659FD93)))
_FIRST_BITS = 12
_ID_BYTES = 4

_IDS = 16
"""Of a piece, at most on average; of those without a key, ids stay behind when they are gone."""


Learn: TypeAlias = Callable[[Sequence[str]], Sequence[bytes | None]]


@dataclass(frozen=True, slots=True)
class Pieces:
    """A text cut up.

    Attributes:
        data: the text's bytes, UTF-8.
        starts, ends: int64 ``[n]``, of each piece, with the space before it if it has one.
        first, second: uint64 ``[n]``, bytes 0 to 7 and 8 to 15 behind that space, zeros behind a
            piece's end. What they hold for longer pieces means nothing.
        long: bool ``[n]``, which pieces have no key.
    """

    data: bytes
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    first: NDArray[np.uint64]
    second: NDArray[np.uint64]
    long: NDArray[np.bool_]

    @classmethod
    def cut(cls, data: bytes, cutter: Cutter) -> Pieces:
        """Cut a text in UTF-8 that holds no zeros."""
        padded = data + bytes(KEY_BYTES)
        starts, ends = cutter(data)
        # At each byte the number that begins there.
        numbers: NDArray[np.uint64] = np.ndarray(
            (len(padded) - 7,), dtype="<u8", buffer=padded, strides=(1,)
        )
        spaced = np.frombuffer(padded, dtype=np.uint8).take(starts) == SPACE
        at = starts + spaced
        lengths = ends - at
        first = numbers[at] & _LOW_BYTES.take(lengths, mode="clip")
        second = numbers[at + 8] & _LOW_BYTES.take(lengths - 8, mode="clip")
        first ^= spaced.view(np.uint8) * _SPACED
        return cls(data, starts, ends, first, second, lengths > KEY_BYTES)

    def begins(self, byte: int) -> NDArray[np.int64]:
        """The pieces that begin with this byte, no space."""
        return np.flatnonzero(self.first.astype(np.uint8) == byte)

    def __len__(self) -> int:
        return len(self.starts)

    def texts(self, which: NDArray[np.int64]) -> list[str]:
        """These pieces as strings."""
        spans = zip(self.starts[which].tolist(), self.ends[which].tolist(), strict=True)
        return [self.data[start:end].decode("utf-8", "surrogatepass") for start, end in spans]


@dataclass(slots=True)
class _Slots:
    """Open addressing: a piece is at its hash or, if that is taken, in the next free slot.

    Attributes:
        rows: uint64 ``[2^bits, 4]``: the two halves of the key, where its token ids begin, how
            many they are. Side by side, so that a piece costs one visit to memory.
    """

    rows: NDArray[np.uint64]

    @classmethod
    def empty(cls, bits: int) -> _Slots:
        return cls(np.zeros((1 << bits, 4), dtype=np.uint64))

    def __len__(self) -> int:
        return len(self.rows)

    def hashed(self, first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.int64]:
        one, two, three = _MULTIPLIERS
        mixed = first * one ^ second * two
        mixed ^= mixed >> np.uint64(32)
        mixed *= three
        bits = len(self).bit_length() - 1
        return (mixed >> np.uint64(64 - bits)).astype(np.int64)

    def find(self, first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The row of each key, ``[n, 4]``; zeros: not there."""
        at = self.hashed(first, second)
        found = self.rows.take(at, axis=0, mode="clip")
        rest = np.flatnonzero(_of_another(found, first, second))
        at, first, second = at[rest], first[rest], second[rest]
        while len(rest):
            at += 1
            found[rest] = next_rows = self.rows.take(at, axis=0, mode="wrap")
            on = np.flatnonzero(_of_another(next_rows, first, second))
            rest, at, first, second = rest[on], at[on], first[on], second[on]
        return found

    def put(self, rows: NDArray[np.uint64]) -> None:
        """Add rows whose keys differ and are not there; there must be room."""
        at, rest = self.hashed(rows[:, 0], rows[:, 1]), np.arange(len(rows))
        while len(rest):
            # Of several that want one free slot, the last to sign there gets it.
            free = self.rows[at, 0] == 0
            wanted, who = at[free], np.flatnonzero(free)
            self.rows[wanted, 2] = who
            placed = who[self.rows[wanted, 2] == who]
            self.rows[at[placed]] = rows[rest[placed]]
            on = np.ones(len(rest), dtype=np.bool_)
            on[placed] = False
            rest, at = rest[on], (at[on] + 1) & (len(self) - 1)


def _of_another(
    rows: NDArray[np.uint64], first: NDArray[np.uint64], second: NDArray[np.uint64]
) -> NDArray[np.bool_]:
    """Which rows of slots belong to another key."""
    other: NDArray[np.bool_] = (rows[:, 0] != first) | (rows[:, 1] != second)
    other &= rows[:, 0] != 0
    return other


_TABLES: WeakSet[PieceTable] = WeakSet()


def _after_fork() -> None:
    """In a child: a lock that another thread held is never let go, its work perhaps half done."""
    for table in list(_TABLES):
        table.free_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@dataclass(frozen=True, slots=True)
class TableState:
    """A copy of what a table knows: the rows of its slots, ids in a row, how many pieces."""

    slots: NDArray[np.uint64]
    ids: NDArray[np.int32]
    known: int


class PieceTable:
    """Token ids of pieces, bounded; safe to use from many threads.

    Args:
        limit: of pieces; after a batch that brought more, all are forgotten and learnt anew.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = RLock()
        self.clear()
        _TABLES.add(self)

    def __len__(self) -> int:
        """Pieces that are known."""
        return self._known

    def free_lock(self) -> None:
        """Forget everything if a thread that is no more holds the lock."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
        else:
            self._lock = RLock()
            self.clear()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._slots = _Slots.empty(_FIRST_BITS)
            self._pool = np.empty(1 << _FIRST_BITS, dtype=np.int32)
            self._used = self._known = 0

    def known(self) -> TableState:
        """What it knows now, for ``remember``."""
        with self._lock:
            return TableState(
                self._slots.rows.copy(), self._pool[: self._used].copy(), self._known
            )

    def remember(self, state: TableState) -> None:
        """Forget everything but this."""
        with self._lock:
            self.clear()
            self._slots = _Slots(state.slots.copy())
            self._write(state.ids.tobytes())
            self._known = state.known

    def encode(
        self, pieces: Pieces, learn: Learn
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """Token ids of pieces, one after the other.

        Args:
            pieces: n of them.
            learn: gives the ids, int32, of those not known; None: it has none of its own.

        Returns:
            ids int32; indptr int64 ``[n + 1]``, piece i has ``ids[indptr[i]:indptr[i + 1]]``; the
            pieces that have none of their own, ascending.
        """
        with self._lock:
            found = self._slots.find(pieces.first, pieces.second)
            begin, counts = found.view(np.int64)[:, 2:].T
            unknown = np.flatnonzero((found[:, 0] == 0) | pieces.long)
            refused = unknown[:0]
            if len(unknown):
                begin[unknown], counts[unknown] = self._learn(pieces, unknown, learn)
                refused = unknown[counts[unknown] < 0]
                counts[refused] = 0
            indptr = np.zeros(len(pieces) + 1, dtype=np.int64)
            np.cumsum(counts, out=indptr[1:])
            inside = np.repeat(begin - indptr[:-1], counts)
            inside += np.arange(len(inside))
            ids = self._pool.take(inside, mode="clip")
            # After, for a batch repeats pieces; a giant one leaves nothing behind.
            if self._known > self._limit or self._used > _IDS * self._limit:
                self.clear()
            return ids, indptr, refused

    def knows(self, pieces: Pieces) -> NDArray[np.bool_]:
        """Which pieces it holds."""
        with self._lock:
            found = self._slots.find(pieces.first, pieces.second)
        known: NDArray[np.bool_] = (found[:, 0] != 0) & ~pieces.long
        return known

    def _learn(
        self, pieces: Pieces, unknown: NDArray[np.int64], learn: Learn
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
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
        kept = np.flatnonzero(~(none | pieces.long[of]))
        of = of[kept]
        self._put(
            np.stack(
                (
                    pieces.first[of],
                    pieces.second[of],
                    begin[kept].astype(np.uint64),
                    counts[kept].astype(np.uint64),
                ),
                axis=1,
            )
        )
        counts[none] = -1
        return begin[back], counts[back]

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

    def _put(self, rows: NDArray[np.uint64]) -> None:
        """Remember new pieces; half of the slots stay free."""
        self._known += len(rows)
        if 2 * self._known > len(self._slots):
            old = self._slots.rows
            self._slots = _Slots.empty((2 * self._known).bit_length() + 1)
            self._slots.put(old[old[:, 0] != 0])
        self._slots.put(rows)
