"""What was written to a generation, in order, and sealing it: one build of all that is left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from steelyard.encoders.folder_swap import new_folder
from steelyard.encoders.json_object import read_json
from steelyard.encoders.whole_file import whole_file
from steelyard.errors import EngineError
from steelyard.plugin.engine import DENSE as DENSE_ARM
from steelyard.plugin.engine import SPARSE, Generation
from steelyard.plugin.local_files import fsync_folder
from steelyard.plugin.lucene.documents import (
    DocumentFile,
    batch_dense,
    batch_terms,
    document_file,
    write_part,
)
from steelyard.plugin.lucene.folder import (
    BUILD,
    CURRENT,
    DENSE,
    DOCUMENTS,
    LUCENE,
    PARTS,
)
from steelyard.plugin.lucene.impact_writer import ImpactWriter
from steelyard.plugin.lucene.jvm import start_jvm
from steelyard.types import DenseVectors, EncodedDocuments

_DELETIONS = ".json"


def add_documents(folder: Path, generation: Generation, content: EncodedDocuments) -> None:
    """Note documents for the next seal; ``sparse`` as impacts."""
    write_part(_next_part(folder, ".arrow"), generation, content)


def add_deletions(folder: Path, ids: Sequence[str]) -> None:
    """Note deletions for the next seal."""
    with whole_file(_next_part(folder, _DELETIONS)) as stream:
        stream.write(json.dumps({"delete": list(ids)}).encode())


def current_build(folder: Path) -> str | None:
    """The name of the sealed build; None before the first seal."""
    try:
        return (folder / CURRENT).readlink().name
    except FileNotFoundError:
        return None


def seal(folder: Path, generation: Generation) -> None:
    """Make one build of the last one and what was written since; readers then see it.

    A seal that is killed changes nothing: the parts stay, and are taken again.
    """
    parts, current = _parts(folder), current_build(folder)
    if current is not None and not parts:
        return
    number = 1 + (int(current.removeprefix(BUILD)) if current else 0)
    name = f"{BUILD}{number}"
    with new_folder(folder / name) as build:
        _write_build(build, generation, _sources(folder, current, parts, generation))
    link = folder / f".{CURRENT}.tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    link.replace(folder / CURRENT)
    fsync_folder(folder)
    for part in parts:
        part.unlink()
    for left in folder.iterdir():
        if left.name.lstrip(".").startswith(BUILD) and left.name != name:
            shutil.rmtree(left, ignore_errors=True)


class _Source:
    """Documents of an older build, or of one part."""

    def __init__(self, documents: DocumentFile, dense: DenseVectors | None, dims: int) -> None:
        self.documents, self._dense, self._dims = documents, dense, dims

    def batches(self) -> Iterator[tuple[Any, DenseVectors]]:
        """Record batches without dense vectors, and these beside them."""
        row = 0
        for batch in self.documents.batches:
            if self._dense is None:
                place = batch.schema.get_field_index("dense")
                yield batch.remove_column(place), batch_dense(batch, self._dims)
            else:
                yield batch, self._dense[row : row + batch.num_rows]
            row += batch.num_rows


def _sources(
    folder: Path, current: str | None, parts: list[Path], generation: Generation
) -> list[_Source | list[str]]:
    """Documents and deletions, in the order in which they were written."""
    found: list[_Source | list[str]] = []
    if current is not None:
        build = folder / current
        dense = open_dense(build, generation)
        found.append(_Source(DocumentFile(build / DOCUMENTS), dense, generation.dims))
    for part in parts:
        if part.suffix == _DELETIONS:
            found.append([str(identifier) for identifier in read_json(part)["delete"]])
        else:
            found.append(_Source(DocumentFile(part), None, generation.dims))
    return found


def _write_build(
    build: Path, generation: Generation, sources: Sequence[_Source | list[str]]
) -> None:
    latest: dict[str, int] = {}
    written = 0
    for source in sources:
        if isinstance(source, _Source):
            for identifier in source.documents.column("id"):
                latest[identifier] = written
                written += 1
        else:
            for identifier in source:
                latest.pop(identifier, None)
    with ExitStack() as files:
        documents = files.enter_context(document_file(build / DOCUMENTS, generation))
        dense = None
        if DENSE_ARM in generation.arms:
            shape = (len(latest), generation.dims)
            dense = files.enter_context(_DenseFile(build / DENSE, shape))
        impacts = None
        if SPARSE in generation.arms:
            impacts = files.enter_context(ImpactWriter(start_jvm(), build / LUCENE))
        position = 0
        for source in sources:
            for batch, vectors in source.batches() if isinstance(source, _Source) else ():
                ids = batch.column("id").to_pylist()
                keep = [i for i, name in enumerate(ids) if latest.get(name) == position + i]
                position += len(ids)
                left = batch.take(np.array(keep, dtype=np.int64))
                documents.write_batch(left)
                if dense is not None:
                    dense.write(vectors[keep])
                if impacts is not None:
                    impacts.add([ids[i] for i in keep], *batch_terms(left))


class _DenseFile:
    """An .npy file written row by row."""

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        self._stream = path.open("wb")
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._stream, header)

    def __enter__(self) -> _DenseFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stream.close()

    def write(self, vectors: DenseVectors) -> None:
        self._stream.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())


def open_dense(build: Path, generation: Generation) -> DenseVectors:
    """The dense vectors ``[n, d]`` of a build, mapped into memory; zeros where it has none."""
    if DENSE_ARM not in generation.arms:
        return np.zeros((len(DocumentFile(build / DOCUMENTS)), generation.dims), np.float32)
    path = build / DENSE
    try:
        with path.open("rb") as stream:
            np.lib.format.read_magic(stream)
            shape, _, _ = np.lib.format.read_array_header_1_0(stream)
        # No bytes can be mapped of nothing.
        vectors: DenseVectors = np.load(path, mmap_mode=None if 0 in shape else "r")
    except ValueError as error:
        raise EngineError(f"{path} is damaged: {error}", "index the corpus again") from error
    return vectors


def _parts(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / PARTS).iterdir() if path.name[0] != ".")


def _next_part(folder: Path, suffix: str) -> Path:
    parts = _parts(folder)
    number = 1 + (int(parts[-1].stem) if parts else 0)
    return folder / PARTS / f"{number:09d}{suffix}"
