"""What ``FaissSearcher`` opens: ``index``, flat by inner product, and ``docid``, a line each."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from steelyard.errors import needs_extra
from steelyard.types import EncodedDocuments


class FaissFolder:
    """A folder for ``FaissSearcher``; all vectors are held in memory until ``save``.

    Args:
        dims: of the vectors.

    Raises:
        MissingExtraError: faiss is not installed.
    """

    def __init__(self, dims: int) -> None:
        with needs_extra("pyserini"):
            import faiss

        self._faiss, self._index = faiss, faiss.IndexFlatIP(dims)
        self._ids: list[str] = []

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, content: EncodedDocuments) -> None:
        """More documents."""
        self._index.add(np.ascontiguousarray(content.dense, dtype=np.float32))
        self._ids += [document.id for document in content.documents]

    def save(self, folder: Path) -> None:
        """Write the folder, which is made."""
        folder.mkdir(parents=True)
        self._faiss.write_index(self._index, str(folder / "index"))
        text = "".join(f"{identifier}\n" for identifier in self._ids)
        (folder / "docid").write_text(text, encoding="utf-8")
