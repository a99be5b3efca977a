"""What a document encoder is, whatever model is inside.

A tower may serve one arm (a frozen embedding model: dense; BM25: sparse) or both in a single
forward pass (a causal language model with its LM head), so one call returns both arms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.pack.metadata import DocumentEncoderSpec
from steelyard.types import DenseVectors, DocumentVectors


class DocumentEncoder(Protocol):
    """Texts to document vectors."""

    def encode_document(self, texts: Sequence[str]) -> DocumentVectors:
        """Vectors of n texts, in one batch; an arm that this encoder does not serve is None."""

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """What each text costs, in tokens after cutting ``[n]``: batches are sorted by it."""


class FullModel(DocumentEncoder, Protocol):
    """A document encoder that also encodes queries: what a look-up stands in for."""

    @property
    def spec(self) -> DocumentEncoderSpec:
        """How to open this model again, and what its vectors depend on."""

    @property
    def dims(self) -> int:
        """Length of its vectors."""

    @property
    def precision(self) -> str:
        """What its matrix products run in: ``float32``, ``bfloat16`` or ``float16``."""

    def encode_query(self, texts: Sequence[str]) -> DenseVectors:
        """The full model's query vectors ``[n, d]``, with its query prompt."""


class Teacher(FullModel, Protocol):
    """A frozen embedding model whose query side can be distilled into a look-up table."""

    def tokenizer_json(self) -> str:
        """The model's own tokenizer.json."""

    def encode_tokens(self, ids: NDArray[np.int64]) -> DenseVectors:
        """Vectors ``[n, d]`` of single vocabulary entries, special tokens put around each."""
