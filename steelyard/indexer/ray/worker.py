"""What runs in an encoder process of the cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from steelyard.encoders.documents.protocol import DocumentEncoder
from steelyard.indexer.encoding.group import EncodedGroup
from steelyard.indexer.encoding.in_order import encode_planned
from steelyard.indexer.encoding.manifest import EncodingPlan
from steelyard.types import DenseVectors, Document, EncodedDocuments, SparseVectors


@dataclass(frozen=True, slots=True)
class Vectors:
    """An encoded group without its documents: the driver has them."""

    dense: DenseVectors
    sparse: SparseVectors
    rows: list[int]
    not_finite: list[int]

    def with_documents(self, documents: Sequence[Document]) -> EncodedGroup:
        """The group again."""
        kept = [documents[row] for row in self.rows]
        return EncodedGroup(
            EncodedDocuments(kept, self.dense, self.sparse), self.rows, self.not_finite
        )


class Worker:
    """One model, encoding one portion after the other.

    Args:
        open_encoder: how to open the model, in the worker.
        plan: sizes of vectors and batches.
    """

    def __init__(self, open_encoder: Callable[[], DocumentEncoder], plan: EncodingPlan) -> None:
        self._open_encoder, self._plan = open_encoder, plan
        self._encoder: DocumentEncoder | None = None

    def open(self) -> None:
        """Open the model. Not at construction: what it raises would reach nobody as it is."""
        self._encoder = self._open_encoder()

    def encode(self, documents: list[Document]) -> Vectors:
        """Encode one portion."""
        encoder = self._encoder or self._open_encoder()
        made = encode_planned(documents, encoder, self._plan)
        return Vectors(made.encoded.dense, made.encoded.sparse, made.rows, made.not_finite)
