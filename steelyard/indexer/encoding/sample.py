"""Documents and vectors out of shards: all, or as many as a job wants."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from steelyard.indexer.encoding.manifest import Manifest
from steelyard.indexer.encoding.shards import read_shard
from steelyard.types import DenseVectors, Document


def sample_documents(
    manifest: Manifest, folder: Path, most: int, seed: int
) -> tuple[list[Document], DenseVectors]:
    """At most ``most`` documents, in order, and their vectors ``[n, d]``; ``seed`` chooses."""
    chosen = np.arange(manifest.encoded)
    if manifest.encoded > most:
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(chosen, most, replace=False))
    documents: list[Document] = []
    vectors: list[DenseVectors] = []
    first = 0
    for entry in manifest.shards:
        content = read_shard(folder / entry.name)
        inside = chosen[(chosen >= first) & (chosen < first + entry.documents)] - first
        documents.extend(content.documents[i] for i in inside.tolist())
        vectors.append(content.dense[inside])
        first += entry.documents
    return documents, np.concatenate(vectors)
