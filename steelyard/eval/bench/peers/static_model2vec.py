"""model2vec over the same table: the pack's own export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steelyard.eval.bench.peers.peer import DENSE, Opened, Setting, bytes_of

if TYPE_CHECKING:
    from steelyard.types import DenseVectors


@dataclass(frozen=True)
class Model2Vec:
    """``StaticModel.encode``."""

    name: str = "model2vec"
    title: str = "model2vec"
    gives: str = DENSE
    install: str = "pip install model2vec"
    most: int | None = None

    def prepare(self, setting: Setting, folder: Path) -> int:
        """Export the pack."""
        from steelyard.encoders.export.formats import export_pack

        export_pack(Path(setting.pack), "model2vec", folder / "model")
        return bytes_of(folder)

    def open(self, setting: Setting, folder: Path) -> Opened:
        """From the export."""
        del setting
        import numpy as np
        from model2vec import StaticModel

        model = StaticModel.from_pretrained(folder / "model")

        def dense(texts: Sequence[str]) -> DenseVectors:
            return np.asarray(model.encode(list(texts)), dtype=np.float32)

        return Opened(model.encode, model.encode, dense=dense)
