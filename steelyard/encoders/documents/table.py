"""A tower that costs nothing: a pack's own look-up table, for documents too.

For tests and benchmarks of everything around the tower. Its rankings are those of averaged token
vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.types import DocumentVectors

KIND = "table"


class TableEncoder:
    """Documents encoded as queries are: dense vectors only."""

    precision = "float32"

    def __init__(self, pack: QueryEncoder) -> None:
        self._pack = pack

    def encode_document(self, texts: Sequence[str]) -> DocumentVectors:
        """Unit vectors ``[n, d]``; a text without a known token has a zero row."""
        return DocumentVectors(dense=self._pack.encode_dense(texts))

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """A look-up pads nothing: every text costs the same."""
        return np.ones(len(texts), dtype=np.int64)
