"""Two half towers as one: a dense model and a sparse counter over the same texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.documents.protocol import DocumentEncoder
from steelyard.types import DocumentVectors


class PairedEncoder:
    """Serves both arms from two encoders that serve one each; batches follow the dense one."""

    def __init__(self, dense: DocumentEncoder, sparse: DocumentEncoder) -> None:
        self.dense = dense
        self.sparse = sparse

    def encode_document(self, texts: Sequence[str]) -> DocumentVectors:
        """Both arms of one batch."""
        return DocumentVectors(
            dense=self.dense.encode_document(texts).dense,
            sparse=self.sparse.encode_document(texts).sparse,
        )

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """The dense encoder's lengths: it is the heavy one."""
        return self.dense.token_lengths(texts)
