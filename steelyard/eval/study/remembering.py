"""A teacher that encodes a text once, however many variants and seeds ask for it."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.documents.protocol import Teacher
from steelyard.encoders.pack.metadata import DocumentEncoderSpec
from steelyard.types import DenseVectors, DocumentVectors

_FLUSH = 2000


class RememberingTeacher:
    """A teacher whose query and token vectors are kept, in memory and in a folder.

    The folder serves one model only: its name holds the model's weights, pooling and query
    prompt. Files are written whole and renamed, so a run that was stopped goes on from them.

    Args:
        teacher: asked for what is not known yet.
        folder: where to keep; made if it is not there.

    Attributes:
        spent: processor seconds, of all threads, in the teacher so far.
        asked: processor seconds of all that was asked for, as measured when it was encoded.
    """

    def __init__(self, teacher: Teacher, folder: Path) -> None:
        self._teacher = teacher
        spec = teacher.spec
        prompt = spec.prompts.get("query", "")
        key = (
            f"{spec.kind} {spec.weights} {spec.pooling} {spec.max_length} {prompt} "
            f"{teacher.precision}"
        )
        self._folder = folder / hashlib.sha256(key.encode()).hexdigest()[:16]
        self._folder.mkdir(parents=True, exist_ok=True)
        self._vectors: dict[str, DenseVectors] = {}
        self._seconds: dict[str, float] = {}
        self._unsaved: list[str] = []
        self.spent = self.asked = 0.0
        for file in sorted(self._folder.glob("queries-*.npz")):
            with np.load(file) as kept:
                for text, vector, seconds in zip(
                    kept["texts"].tolist(), kept["vectors"], kept["seconds"], strict=True
                ):
                    self._vectors[text], self._seconds[text] = vector, float(seconds)

    @property
    def spec(self) -> DocumentEncoderSpec:
        """The teacher's."""
        return self._teacher.spec

    @property
    def dims(self) -> int:
        """The teacher's."""
        return self._teacher.dims

    @property
    def precision(self) -> str:
        """The teacher's."""
        return self._teacher.precision

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """The teacher's."""
        return self._teacher.token_lengths(texts)

    def encode_document(self, texts: Sequence[str]) -> DocumentVectors:
        """The teacher's, not kept."""
        return self._teacher.encode_document(texts)

    def tokenizer_json(self) -> str:
        """The teacher's."""
        return self._teacher.tokenizer_json()

    def encode_query(self, texts: Sequence[str]) -> DenseVectors:
        """The teacher's vectors ``[n, d]``; only texts that are new are encoded."""
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            started = time.process_time()
            vectors = self._teacher.encode_query(new)
            seconds = time.process_time() - started
            self.spent += seconds
            each = seconds / len(new)
            for text, vector in zip(new, vectors, strict=True):
                self._vectors[text], self._seconds[text] = vector, each
            self._unsaved += new
            if len(self._unsaved) >= _FLUSH:
                self.save()
        self.asked += sum(self._seconds[text] for text in texts)
        return np.stack([self._vectors[text] for text in texts])

    def encode_tokens(self, ids: NDArray[np.int64]) -> DenseVectors:
        """The teacher's vectors ``[n, d]`` of vocabulary entries, kept by first and last."""
        file = self._folder / f"entries-{int(ids[0])}-{int(ids[-1])}.npz"
        if file.is_file():
            with np.load(file) as kept:
                if np.array_equal(kept["ids"], ids):
                    self.asked += float(kept["seconds"])
                    known: DenseVectors = kept["vectors"]
                    return known
        started = time.process_time()
        vectors = self._teacher.encode_tokens(ids)
        seconds = time.process_time() - started
        self.spent += seconds
        self.asked += seconds
        _write(file, {"ids": ids, "vectors": vectors, "seconds": np.array(seconds)})
        return vectors

    def save(self) -> None:
        """Write what is not in the folder yet."""
        texts, self._unsaved = self._unsaved, []
        if not texts:
            return
        content: dict[str, NDArray[Any]] = {
            "texts": np.array(texts),
            "vectors": np.stack([self._vectors[text] for text in texts]),
            "seconds": np.array([self._seconds[text] for text in texts]),
        }
        name = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
        _write(self._folder / f"queries-{name}.npz", content)


def _write(file: Path, arrays: dict[str, NDArray[Any]]) -> None:
    temporary = file.with_name(f".{os.getpid()}-{file.name}")
    with temporary.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
    temporary.rename(file)
