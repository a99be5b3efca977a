"""One quantisation of sparse weights for all engines, so that all rank alike.

impact = clip(floor(scale x weight), 0, 512) in float32, scale 100 as LightRetriever's converter.
Integers up to 512 are exact in OpenSearch's rank_features, and Lucene stores integers anyway.
"""

from __future__ import annotations

import numpy as np

from steelyard.types import SparseVectors

MAX_IMPACT = 512


def quantise(vectors: SparseVectors, scale: float) -> tuple[SparseVectors, int]:
    """Integer impacts (as float32) of float weights; zeros are dropped.

    Returns:
        The impacts, and how many weights were clipped to ``MAX_IMPACT``.
    """
    impacts = np.floor(vectors.weights * np.float32(scale))
    clipped = int(np.count_nonzero(impacts > MAX_IMPACT))
    impacts = np.clip(impacts, 0, MAX_IMPACT).astype(np.float32)
    quantised = SparseVectors(vectors.indptr, vectors.ids, impacts, vectors.vocabulary_size)
    if (impacts == 0).any():
        matrix = quantised.to_csr()
        matrix.eliminate_zeros()
        quantised = SparseVectors.from_csr(matrix)
    return quantised, clipped
