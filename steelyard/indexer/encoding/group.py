"""Documents in memory to vectors: what a shard and a live change have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from steelyard.encoders.documents.batching import length_batches
from steelyard.encoders.documents.protocol import DocumentEncoder
from steelyard.types import Document, EncodedDocuments, SparseVectors


@dataclass(frozen=True, slots=True)
class EncodedGroup:
    """What became of some documents.

    Attributes:
        encoded: those with finite vectors, in order.
        rows: their positions among the documents given.
        not_finite: positions of the others: their vectors have a NaN or an infinity.
    """

    encoded: EncodedDocuments
    rows: list[int]
    not_finite: list[int]


def encode_group(
    documents: Sequence[Document],
    encoder: DocumentEncoder,
    *,
    dims: int,
    vocabulary_size: int,
    batch_tokens: int,
    advance: Callable[[int], None] = lambda _: None,
) -> EncodedGroup:
    """Encode documents in batches of like length.

    Args:
        documents: any number; all their vectors are held in memory.
        encoder: the tower.
        dims: length of a dense vector.
        vocabulary_size: columns of a sparse vector.
        batch_tokens: padded tokens in a batch.
        advance: told the documents done.
    """
    texts = [document.content for document in documents]
    dense = np.zeros((len(texts), dims), dtype=np.float32)
    nothing = (np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32))
    rows = [nothing] * len(texts)
    for batch in length_batches(encoder.token_lengths(texts), batch_tokens):
        vectors = encoder.encode_document([texts[i] for i in batch])
        if vectors.dense is not None:
            dense[batch] = vectors.dense
        if vectors.sparse is not None:
            for i, row in zip(batch, vectors.sparse.rows(), strict=True):
                rows[i] = row
        advance(len(batch))
    finite = [
        bool(np.isfinite(vector).all() and np.isfinite(weights).all())
        for vector, (_, weights) in zip(dense, rows, strict=True)
    ]
    good = [i for i, ok in enumerate(finite) if ok]
    encoded = EncodedDocuments(
        [documents[i] for i in good],
        dense[good],
        SparseVectors.from_rows([rows[i] for i in good], vocabulary_size),
    )
    return EncodedGroup(encoded, good, [i for i, ok in enumerate(finite) if not ok])
