"""Pyserini's JSON vector collection: ``{"id", "contents", "vector": {token id: impact}}``."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import IO

from steelyard.types import EncodedDocuments

FILE_BYTES = 256 * 2**20
"""A file ends after this; Anserini gives each file to one thread."""


class VectorCollection:
    """A folder of JSON lines, documents in order; closed by ``with``.

    Anserini leaves a document without a term out of the index, so ``documents`` is the index's
    count plus ``empty``.

    Args:
        folder: where to; made.
        file_bytes: a file ends after so many.

    Attributes:
        documents: lines written.
        empty: those whose vector is empty.
        postings: terms of all documents.
        files: how many.
    """

    def __init__(self, folder: Path, file_bytes: int = FILE_BYTES) -> None:
        folder.mkdir(parents=True)
        self._folder, self._file_bytes = folder, file_bytes
        self._stream: IO[bytes] | None = None
        self._left = 0
        self.documents = self.empty = self.postings = self.files = 0

    def add(self, content: EncodedDocuments) -> None:
        """More documents; ``sparse`` as impacts, which are integers already."""
        rows = content.sparse.rows()
        for document, (ids, impacts) in zip(content.documents, rows, strict=True):
            terms = zip(ids.tolist(), impacts.tolist(), strict=True)
            value = {
                "id": document.id,
                "contents": document.content,
                "vector": {str(token): int(impact) for token, impact in terms},
            }
            self._write(json.dumps(value, ensure_ascii=False).encode() + b"\n")
            self.documents += 1
            self.empty += not len(ids)
            self.postings += len(ids)

    def _write(self, line: bytes) -> None:
        if self._stream is None or self._left <= 0:
            self._close()
            path = self._folder / f"documents-{self.files:05d}.jsonl"
            self._stream = path.open("wb")
            self._left = self._file_bytes
            self.files += 1
        self._stream.write(line)
        self._left -= len(line)

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def __enter__(self) -> VectorCollection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()
