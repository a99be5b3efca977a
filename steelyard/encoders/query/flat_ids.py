"""Token ids of many texts, one after the other, and how such rows are put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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


def spliced(heads: FlatIds, texts: FlatIds, tails: NDArray[np.int64]) -> FlatIds:
    """Heads of texts with other prefixes, and what follows them in the texts.

    Args:
        tails: int64 ``[n]``, where that begins in ``texts.ids``.
    """
    begins = np.stack((heads.indptr[:-1], tails + len(heads.ids)), axis=1).ravel()
    lengths = np.stack((np.diff(heads.indptr), texts.indptr[1:] - tails), axis=1).ravel()
    indptr = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=indptr[1:])
    inside = np.repeat(begins - indptr[:-1], lengths)
    inside += np.arange(len(inside))
    ids = np.concatenate((heads.ids, texts.ids)).take(inside)
    return FlatIds(ids, indptr[::2].copy(), np.union1d(heads.asked, texts.asked))


def in_a_row(blocks: Sequence[FlatIds]) -> FlatIds:
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
