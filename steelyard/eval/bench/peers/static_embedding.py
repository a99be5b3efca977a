"""sentence-transformers' StaticEmbedding over the same table: the pack's own export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steelyard.eval.bench.peers.peer import DENSE, Opened, Setting, bytes_of

if TYPE_CHECKING:
    from steelyard.types import DenseVectors


@dataclass(frozen=True)
class StaticEmbedding:
    """``SentenceTransformer.encode_query`` on the CPU, in batches as large as it is given."""

    name: str = "static-embedding"
    title: str = "StaticEmbedding"
    gives: str = DENSE
    install: str = "pip install sentence-transformers"
    most: int | None = None

    def prepare(self, setting: Setting, folder: Path) -> int:
        """Export the pack."""
        from steelyard.encoders.export.formats import export_pack

        export_pack(Path(setting.pack), "sentence-transformers", folder / "model")
        return bytes_of(folder)

    def open(self, setting: Setting, folder: Path) -> Opened:
        """From the export."""
        del setting
        import numpy as np
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(folder / "model"), device="cpu", local_files_only=True)

        def many(texts: Sequence[str]) -> DenseVectors:
            size = max(1, len(texts))  # by default it would work in batches of 32
            found = model.encode_query(list(texts), batch_size=size, show_progress_bar=False)
            return np.asarray(found, dtype=np.float32)

        return Opened(
            lambda text: model.encode_query(text, show_progress_bar=False), many, dense=many
        )
