"""Documents that are encoded already, served again from their shards.

For an index of some documents of a corpus whose shards are there: no model is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steelyard.errors import InputError
from steelyard.indexer.encoding.manifest import Manifest
from steelyard.indexer.encoding.shards import read_shard
from steelyard.types import DenseVectors, DocumentVectors, SparseVectors


class StoredDocuments:
    """A document encoder that knows the texts of some shards, and no other.

    Args:
        folder: of the shards; their vectors are held in memory.
        manifest: of that folder. The caller sees to it that the space is the one wanted.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder = folder
        self._vocabulary_size = manifest.plan.vocabulary_size
        self._place: dict[str, tuple[int, int]] = {}
        self._dense: list[DenseVectors] = []
        self._sparse: list[SparseVectors] = []
        for number, entry in enumerate(manifest.shards):
            content = read_shard(folder / entry.name)
            self._dense.append(content.dense)
            self._sparse.append(content.sparse)
            for row, document in enumerate(content.documents):
                self._place[document.content] = number, row

    def encode_document(self, texts: Sequence[str]) -> DocumentVectors:
        """Both arms of n texts, as they are stored.

        Raises:
            InputError: a text that is in none of the shards.
        """
        unknown = next((text for text in texts if text not in self._place), None)
        if unknown is not None:
            raise InputError(
                f"{unknown[:60]!r} is in no shard of {self._folder}",
                "encode the corpus that this document is in",
            )
        places = [self._place[text] for text in texts]
        dense = [self._dense[shard][row] for shard, row in places]
        sparse = [self._sparse[shard].row(row) for shard, row in places]
        return DocumentVectors(
            np.array(dense, dtype=np.float32),
            SparseVectors.from_rows(sparse, self._vocabulary_size),
        )

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """All cost the same."""
        return np.ones(len(texts), dtype=np.int64)
