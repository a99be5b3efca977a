"""The documents' own vectors improve the query, still without a model.

q' = normalise(q + b x normalise(sum of softmax(score / t)-weighted vectors of the k best)).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from steelyard.types import DenseVectors

STRENGTH = 0.3
"""b: how far the query moves toward its best documents."""

TEMPERATURE = 0.1
"""t: of the softmax over the best documents' fused scores."""


def refine(query: DenseVectors, best: DenseVectors, scores: NDArray[np.float64]) -> DenseVectors:
    """The refined query ``[d]``.

    Args:
        query: unit vector ``[d]``.
        best: dense vectors of the best documents ``[k, d]``.
        scores: their fused scores ``[k]``.
    """
    if not len(best):
        return query
    weights = np.exp((scores - scores.max()) / TEMPERATURE)
    centre = ((weights / weights.sum()) @ best.astype(np.float64)).astype(np.float32)
    length = float(np.linalg.norm(centre))
    moved = query + np.float32(STRENGTH) * (centre / length if length else centre)
    norm = float(np.linalg.norm(moved))
    return (moved / norm if norm else query).astype(np.float32)
