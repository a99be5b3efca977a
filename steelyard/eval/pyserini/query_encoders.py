"""Query packs where Pyserini expects a query encoder.

Pyserini 1.6 takes any object with an ``encode`` for one: it only asks whether it is a string.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import InputError
from steelyard.types import DenseVectors, SparseVectors

QUERY_SCALE = 10_000
"""Pyserini's query weights are integers: ours times this, rounded.

Scores are float32, in which integers up to 2^24 are exact: with the documents' 100, up to 16 of
ours. With 100, the best ten of 12 in 300 SciFact queries change; with 10,000 those of none.
"""

MAX_QUERY_TERMS = 512
"""The heaviest terms of a query are searched, as in every engine; Lucene ends at 1,024."""


def query_impacts(sparse: SparseVectors, scale: int = QUERY_SCALE) -> list[dict[str, int]]:
    """What Pyserini searches an impact index by: token ids as strings, integer weights.

    Args:
        sparse: n queries.
        scale: weights are ``round(scale x weight)``; those that come to 0 are left out.

    Returns:
        One dict a query; a score is then ``scale`` x the index's own scale (100) x the inner
        product of the rounded weights with the documents' impacts / 100.
    """
    found = []
    for ids, weights in sparse.heaviest(MAX_QUERY_TERMS).rows():
        rounded = np.rint(weights.astype(np.float64) * scale).astype(np.int64)
        pairs = zip(ids.tolist(), rounded.tolist(), strict=True)
        found.append({str(token): weight for token, weight in pairs if weight})
    return found


class ImpactQueryEncoder:
    """The sparse arm of a pack for ``LuceneImpactSearcher(index, encoder, min_idf=-1)``.

    With Pyserini's own ``min_idf=0``, terms that all documents have are not searched.

    Args:
        pack: its folder, or a loaded one.
        scale: of the query weights; see ``query_impacts``.
    """

    def __init__(self, pack: str | Path | QueryEncoder, scale: int = QUERY_SCALE) -> None:
        if scale < 1:
            raise InputError(f"a scale of {scale} leaves no weights", "give 1 or more")
        self.pack = _load(pack)
        self.scale = scale

    def encode(self, text: str) -> dict[str, int]:
        """Token ids as strings, integer weights; empty where no token is known."""
        return query_impacts(self.pack.encode_query(text).sparse, self.scale)[0]

    def encode_batch(self, texts: Sequence[str]) -> list[dict[str, int]]:
        """The same of many queries."""
        return query_impacts(self.pack.encode_sparse(texts), self.scale)


class DenseQueryEncoder:
    """The dense arm of a pack for ``FaissSearcher(index, encoder)``.

    Pyserini gives a query without a known token, whose vector is zero, documents of score 0;
    Steelyard's own search gives it none.

    Args:
        pack: its folder, or a loaded one.
        instruction: name of the table; None is the pack's default.
    """

    def __init__(self, pack: str | Path | QueryEncoder, instruction: str | None = None) -> None:
        self.pack = _load(pack)
        self.instruction = instruction
        self.pack.encode_query("", instruction=instruction)  # an unknown one is told at once

    def encode(self, text: str) -> NDArray[np.float32]:
        """A unit vector, float32 ``[d]``."""
        vector: NDArray[np.float32] = self.pack.encode_query(
            text, instruction=self.instruction
        ).dense[0]
        return vector

    def encode_batch(self, texts: Sequence[str]) -> DenseVectors:
        """Unit rows, float32 ``[n, d]``."""
        return self.pack.encode_dense(texts, instruction=self.instruction)


def _load(pack: str | Path | QueryEncoder) -> QueryEncoder:
    return pack if isinstance(pack, QueryEncoder) else QueryEncoder.load(pack)
