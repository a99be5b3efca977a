"""MRL: vectors whose first components are good vectors, too (Matryoshka representations)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch.nn.functional import normalize

from steelyard.errors import InputError


def check_dims(dims: Sequence[int]) -> tuple[int, ...]:
    """The lengths to train, shortest first, the longest being the KL terms' teacher.

    Raises:
        InputError: a length below 1, or lengths that do not rise.
    """
    if any(d < 1 for d in dims) or any(a >= b for a, b in pairwise(dims)):
        raise InputError(
            f"MRL dims {list(dims)}", "give rising lengths, for example 128, 256, 576"
        )
    return tuple(dims)


def cut(vectors: torch.Tensor, dims: int | None) -> torch.Tensor:
    """The first components, normalised again.

    Args:
        vectors: ``[n, d]``.
        dims: k; None leaves the vectors as they are.

    Returns:
        ``[n, k]`` unit rows.

    Raises:
        InputError: k is more than d.
    """
    if dims is None:
        return vectors
    if dims > vectors.shape[1]:
        raise InputError(
            f"MRL dims {dims}, the vectors have {vectors.shape[1]}", "cut to fewer, not more"
        )
    return normalize(vectors[:, :dims], dim=1)
