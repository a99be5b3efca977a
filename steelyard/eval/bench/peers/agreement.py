"""Whether a contender that is given our table gives our vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from steelyard.encoders.export.formats import TOLERANCES
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import SteelyardError
from steelyard.types import DenseVectors, SparseVectors

_TOLERANCE = 1e-5


def dense_agreement(
    encoder: QueryEncoder, texts: Sequence[str], found: DenseVectors, *, exact: bool
) -> dict[str, Any]:
    """``dims``, and for ``exact`` the largest difference in a component.

    Raises:
        SteelyardError: the vectors are others than ours, and should be ours.
    """
    dims = int(found.shape[1])
    if not exact:
        return {"dims": dims}
    ours = encoder.encode_dense(list(texts))
    if ours.shape != found.shape:
        raise SteelyardError(f"it gives {list(found.shape)}, ours are {list(ours.shape)}")
    difference = float(np.abs(ours - found).max())
    allowed = TOLERANCES[encoder.metadata.dense.dtype]
    if not difference <= allowed:
        raise SteelyardError(
            f"its vectors differ from ours by {difference:.3g}, allowed are {allowed:g}"
        )
    return {"dims": dims, "difference": difference}


def sparse_agreement(
    ours: SparseVectors, found: SparseVectors, encoder: QueryEncoder
) -> dict[str, Any]:
    """The same terms, and the same weight where a term occurs once; others count presence alone.

    Raises:
        SteelyardError: other terms or weights.
    """
    if not (np.array_equal(ours.indptr, found.indptr) and np.array_equal(ours.ids, found.ids)):
        raise SteelyardError(
            f"it finds other terms than ours: {len(found.ids):,}, ours are {len(ours.ids):,}"
        )
    once = encoder.query_weights[ours.ids] == ours.weights
    difference = float(np.abs(ours.weights - found.weights)[once].max(initial=0.0))
    if not difference <= _TOLERANCE * max(1.0, float(ours.weights.max(initial=0.0))):
        raise SteelyardError(f"its weights differ from ours by {difference:.3g}")
    return {"difference": difference}
