"""The ids of a corpus so far, and where each was first: about 33 bytes an id, whatever its length.

Ids are kept as 128-bit hashes: among 100 million of them the chance that any two are taken for one
another is below 1e-22.
"""

from __future__ import annotations

import struct
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

_PARTITIONS = 64
_SHIFT = 6
_FIRST_SLOTS = 64
_FULL = 0.8
_GROWTH = 1.25
_PAIR = struct.Struct("<QQ")


class SeenIds:
    """A set of ids with a number for each.

    It is cut into 64 tables by hash. Each grows alone and by a quarter, so that growing holds
    little more memory than the ids themselves.
    """

    def __init__(self) -> None:
        self._tables = [_Table() for _ in range(_PARTITIONS)]

    def __len__(self) -> int:
        return sum(table.used for table in self._tables)

    @property
    def nbytes(self) -> int:
        """Memory of the tables."""
        return sum(table.nbytes for table in self._tables)

    def get(self, identifier: str) -> int:
        """The number of an id; 0 when it was not seen."""
        high, low = _hashed(identifier)
        return self._tables[high % _PARTITIONS].get(high, low)

    def add(self, identifier: str, number: int) -> int:
        """Note an id that was not seen.

        Args:
            identifier: the id.
            number: 1 to 2^64 - 1.

        Returns:
            0; or the number it has already, which it keeps.
        """
        high, low = _hashed(identifier)
        return self._tables[high % _PARTITIONS].add(high, low, number)


def _hashed(identifier: str) -> tuple[int, int]:
    high, low = _PAIR.unpack(blake2b(identifier.encode(), digest_size=16).digest())
    return high, low


class _Table:
    """Open addressing with linear probing over three columns; number 0 is a free slot."""

    def __init__(self) -> None:
        self.used = 0
        self._allocate(_FIRST_SLOTS)

    @property
    def nbytes(self) -> int:
        """Memory of the columns."""
        return 24 * self._slots

    def get(self, high: int, low: int) -> int:
        """The number of a hash, or 0."""
        return self._numbers[self._find(high, low)]

    def add(self, high: int, low: int, number: int) -> int:
        """Put a hash in; its number if it is there already, else 0."""
        slot = self._find(high, low)
        if found := self._numbers[slot]:
            return found
        if self.used + 1 > self._slots * _FULL:
            self._grow()
            slot = self._find(high, low)
        self._highs[slot], self._lows[slot], self._numbers[slot] = high, low, number
        self.used += 1
        return 0

    def _find(self, high: int, low: int) -> int:
        """Where a hash is, or the free slot where it would be."""
        highs, lows, numbers, slots = self._highs, self._lows, self._numbers, self._slots
        slot = (high >> _SHIFT) % slots
        while numbers[slot] and (highs[slot] != high or lows[slot] != low):
            slot = slot + 1 if slot + 1 < slots else 0
        return slot

    def _grow(self) -> None:
        """Lay everything out in more slots: in order of home, each behind the one before."""
        filled = np.flatnonzero(self._columns[2])
        highs, lows, numbers = (column[filled] for column in self._columns)
        self._allocate(int(self._slots * _GROWTH) + 1)
        homes = ((highs >> np.uint64(_SHIFT)) % np.uint64(self._slots)).astype(np.int64)
        order = np.argsort(homes, kind="stable")
        counted = np.arange(len(order))
        places = np.maximum.accumulate(homes[order] - counted) + counted
        inside = places < self._slots
        for column, values in zip(self._columns, (highs, lows, numbers), strict=True):
            column[places[inside]] = values[order[inside]]
        for entry in order[~inside]:  # the few that wrap around
            high, low = int(highs[entry]), int(lows[entry])
            slot = self._find(high, low)
            self._highs[slot], self._lows[slot] = high, low
            self._numbers[slot] = int(numbers[entry])

    def _allocate(self, slots: int) -> None:
        self._slots = slots
        self._columns: list[NDArray[np.uint64]] = [np.zeros(slots, np.uint64) for _ in range(3)]
        # A view of a memory gives Python's own integers, several times faster than an array does.
        self._highs, self._lows, self._numbers = map(_integers, self._columns)


def _integers(column: NDArray[np.uint64]) -> memoryview[int]:
    view: memoryview[int] = column.data
    return view
