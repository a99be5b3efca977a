"""Queries encoded by the full model: what a look-up is to learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from steelyard.encoders.array_file import read_array, write_array
from steelyard.encoders.documents.batching import encode_in_batches
from steelyard.encoders.documents.protocol import FullModel
from steelyard.encoders.folder_lock import locked_folder
from steelyard.encoders.pack.spaces import short_hash
from steelyard.errors import SteelyardError
from steelyard.types import DenseVectors

PORTION = 512
"""Texts whose vectors are written at a time."""


def encode_full(
    model: FullModel, texts: Sequence[str], advance: Callable[[int], None]
) -> DenseVectors:
    """Vectors ``[n, d]`` of n queries, with the model's query prompt."""
    return encode_in_batches(
        texts, model.token_lengths(texts), model.encode_query, model.dims, advance=advance
    )


def encode_kept(
    model: FullModel, texts: Sequence[str], work: Path, advance: Callable[[int], None]
) -> DenseVectors:
    """The same, portion by portion; those that an earlier call finished are read.

    Batches never cross a portion, so that a call which goes on gives the same bits.

    Args:
        model: the full model.
        texts: n queries.
        work: a folder in it, named by all that the vectors depend on, holds the portions.
        advance: told the number of texts done.

    Raises:
        BusyError: another job encodes the same.
        SteelyardError: the model gives NaN or infinite vectors.
    """
    spec = model.spec
    parts = [spec.kind, spec.weights, spec.pooling, spec.prompts.get("query", "")]
    key = short_hash([*parts, spec.max_length, model.precision, model.dims, list(texts)])
    vectors = np.empty((len(texts), model.dims), dtype=np.float32)
    order = np.argsort(-model.token_lengths(texts), kind="stable")
    with locked_folder(work / key):
        for first in range(0, len(order), PORTION):
            chosen = order[first : first + PORTION]
            path = work / key / f"vectors-{first:08d}.npy"
            found = read_array(path, (len(chosen), model.dims))
            if found is None:
                found = encode_full(model, [texts[i] for i in chosen], advance)
                _refuse_not_finite(found, [texts[i] for i in chosen])
                write_array(path, found)
            else:
                advance(len(chosen))
            vectors[chosen] = found
    return vectors


def _refuse_not_finite(vectors: DenseVectors, texts: Sequence[str]) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise SteelyardError(
            f"{len(bad)} of {len(vectors)} pseudo-queries have NaN or infinite vectors, the first "
            f"is {texts[bad[0]][:60]!r}",
            "use a wider --precision, or check the model's weights",
        )
