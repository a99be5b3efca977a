"""Many real vectors out of a small corpus: overlapping windows of words, encoded and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from steelyard.config import cache_dir
from steelyard.encoders.documents.batching import encode_in_batches
from steelyard.encoders.documents.bm25 import Bm25Encoder
from steelyard.encoders.documents.protocol import FullModel
from steelyard.encoders.pack.spaces import short_hash
from steelyard.errors import InputError
from steelyard.plugin.engine import Engine, Generation
from steelyard.progress import Progress
from steelyard.types import DenseVectors, Document, EncodedDocuments


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


def index_passages(
    engine: Engine,
    template: Generation,
    texts: Sequence[str],
    vectors: DenseVectors,
    terms: Bm25Encoder,
    progress: Progress,
    *,
    batch: int = 2048,
) -> None:
    """Publish passages under the engine's alias, called by their row; nothing if they are there.

    Args:
        engine: where to.
        template: all but the name and the content.
        texts: the passages.
        vectors: theirs ``[n, d]``.
        terms: of the pack.
        progress: shows the load.
        batch: passages of one upsert.
    """
    content = short_hash([template.dense_space, template.sparse_space, list(texts)])
    current = engine.resolve()
    if current is not None and current.content == content:
        return
    moment = f"{datetime.now(timezone.utc):%Y%m%d%H%M%S}"
    name = f"{engine.alias}_{moment}_{short_hash([content, moment], 8)}"
    generation = replace(template, name=name, content=content)
    engine.create(generation)
    with progress.stage("load passages", len(texts)) as advance:
        for first in range(0, len(texts), batch):
            part = texts[first : first + batch]
            sparse = terms.encode_document(part).sparse
            if sparse is None:
                raise InputError("this pack's document encoder makes no terms")
            documents = [Document(str(first + row), text) for row, text in enumerate(part)]
            dense = vectors[first : first + batch]
            engine.upsert(generation, EncodedDocuments(documents, dense, sparse))
            advance(len(part))
    with progress.stage("build the index"):
        engine.seal(generation)
    engine.publish(generation)
    if current is not None:
        engine.drop(current)
