"""Batches of like length: padding is work that is thrown away."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

BATCH_TOKENS = 4096
"""Default number of padded tokens in a batch."""


def length_batches(
    lengths: NDArray[np.int64], batch_tokens: int = BATCH_TOKENS
) -> Iterator[NDArray[np.int64]]:
    """Split n texts into batches of at most ``batch_tokens`` padded tokens, longest first.

    Longest first, so that a batch that does not fit in memory fails at once and not at the end.

    Args:
        lengths: tokens of each text ``[n]``.
        batch_tokens: budget; a single longer text is a batch of its own.

    Yields:
        Indices into ``lengths``; together a permutation.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        size = max(1, batch_tokens // longest)
        yield order[start : start + size]
        start += size


def encode_in_batches(
    texts: Sequence[str],
    lengths: NDArray[np.int64],
    encode: Callable[[Sequence[str]], NDArray[np.float32]],
    dims: int,
    *,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Encode texts batch by batch and return the rows in the texts' own order ``[n, dims]``.

    Args:
        advance: told the number of texts done after every batch (progress bars).
    """
    vectors = np.zeros((len(texts), dims), dtype=np.float32)
    for batch in length_batches(lengths, batch_tokens):
        vectors[batch] = encode([texts[i] for i in batch])
        if advance is not None:
            advance(len(batch))
    return vectors
