"""fastembed's inference-free sparse encoder, over the pack's own tokenizer and weights.

Its one supported model lies on a hub. A query needs no more of it than a tokenizer and a weight
a token, so a local folder with ours stands in; the code that runs is the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steelyard.eval.bench.peers.peer import SPARSE, Opened, Setting, bytes_of
from steelyard.eval.bench.peers.token_weights import write_token_weights

if TYPE_CHECKING:
    from steelyard.types import SparseVectors

_MODEL = "opensearch-project/opensearch-neural-sparse-encoding-doc-v3-gte"
_LONGEST = 512


@dataclass(frozen=True)
class FastEmbedSparse:
    """``SparseTextEmbedding.query_embed``: each token once, whatever its count."""

    name: str = "fastembed-sparse"
    title: str = "fastembed sparse"
    gives: str = SPARSE
    install: str = "pip install fastembed"
    most: int | None = None

    def prepare(self, setting: Setting, folder: Path) -> int:
        """A model folder as it reads one, without the document model."""
        write_token_weights(setting, folder)
        files = {
            "config.json": {"pad_token_id": 0},
            "tokenizer_config.json": {"model_max_length": _LONGEST, "pad_token": "[PAD]"},
            "special_tokens_map.json": {},
        }
        for name, value in files.items():
            (folder / name).write_text(json.dumps(value), encoding="utf-8")
        return bytes_of(folder)

    def open(self, setting: Setting, folder: Path) -> Opened:
        """The query side alone: the document model is not loaded."""
        from fastembed import SparseTextEmbedding

        model = SparseTextEmbedding(
            _MODEL, specific_model_path=str(folder), lazy_load=True, local_files_only=True
        )

        def sparse(texts: Sequence[str]) -> SparseVectors:
            import numpy as np

            from steelyard.encoders.pack.files import read_metadata
            from steelyard.types import SparseVectors

            found = list(model.query_embed(list(texts)))
            return SparseVectors(
                np.cumsum([0, *(len(row.indices) for row in found)], dtype=np.int64),
                np.concatenate([row.indices for row in found]).astype(np.int32),
                np.concatenate([row.values for row in found]).astype(np.float32),
                read_metadata(Path(setting.pack)).dense.rows,
            )

        return Opened(
            lambda text: list(model.query_embed(text)),
            lambda texts: list(model.query_embed(texts)),
            sparse=sparse,
        )
