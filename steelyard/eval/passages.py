"""Many real vectors out of a small corpus: overlapping windows of words, encoded and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from steelyard.config import cache_dir
from steelyard.encoders.documents.batching import encode_in_batches
from steelyard.encoders.documents.protocol import FullModel
from steelyard.encoders.pack.spaces import short_hash
from steelyard.errors import InputError
from steelyard.progress import Progress
from steelyard.types import DenseVectors


def windows(texts: list[str], count: int, words: int) -> list[str]:
    """``count`` windows of so many words, spread evenly over the texts.

    Raises:
        InputError: there are not so many different ones.
    """
    split = [text.split() for text in texts]
    starts = [max(0, len(part) - words) + 1 for part in split]
    total = sum(starts)
    if total < count:
        raise InputError(
            f"the corpus has {total:,} windows of {words} words, {count:,} were asked for",
            "ask for fewer",
        )
    edges = np.cumsum([0, *starts])
    chosen = np.linspace(0, total - 1, count).astype(np.int64)
    rows = np.searchsorted(edges, chosen, side="right") - 1
    return [
        " ".join(split[row][start : start + words])
        for row, start in zip(rows.tolist(), (chosen - edges[rows]).tolist(), strict=True)
    ]


def encoded_windows(
    texts: list[str],
    space: str,
    open_model: Callable[[], FullModel],
    progress: Progress,
) -> DenseVectors:
    """Their document vectors ``[n, d]``; kept in the cache for the next time.

    Args:
        texts: the windows.
        space: dense space id of the model.
        open_model: opens the document encoder; not called when the vectors are kept already.
        progress: shows the encoding.
    """
    key = short_hash([space, texts])
    kept: Path = cache_dir() / "windows" / f"{key}.npy"
    if kept.exists():
        found: DenseVectors = np.load(kept)
        return found
    model = open_model()

    def encode(batch: Sequence[str]) -> DenseVectors:
        dense = model.encode_document(batch).dense
        if dense is None:
            raise InputError("this document encoder makes no dense vectors")
        return dense

    with progress.stage("encode passages", len(texts)) as advance:
        lengths = model.token_lengths(texts)
        vectors = encode_in_batches(texts, lengths, encode, model.dims, advance=advance)
    kept.parent.mkdir(parents=True, exist_ok=True)
    temporary = kept.with_suffix(".tmp.npy")
    np.save(temporary, vectors)
    temporary.replace(kept)
    return vectors
