"""Writing, reading and verifying a query pack folder.

A pack is written to a temporary folder beside its place, flushed to disk, and renamed: a reader
sees the whole pack or none. Reading checks every size and, unless told not to, every checksum.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders import folder_swap
from steelyard.encoders.pack.card import model_card
from steelyard.encoders.pack.metadata import FileEntry, PackMetadata
from steelyard.encoders.pack.tensors import map_tensors
from steelyard.errors import PackError

PACK_JSON = "pack.json"
TOKENIZER = "tokenizer.json"
DENSE = "dense.safetensors"
SPARSE = "sparse.safetensors"
CARD = "README.md"
DATA_FILES = (TOKENIZER, DENSE, SPARSE)


@dataclass(frozen=True)
class PackContents:
    """An opened pack.

    Attributes:
        metadata: pack.json.
        tokenizer_json: the tokenizer, as text.
        tables: tensors of dense.safetensors: ``table.<instruction>`` ``[rows, dims]``, and for
            int8 ``scale.<instruction>`` ``[rows]`` float32.
        query_weights: float32 ``[rows]``, the sparse weight of one occurrence of each token.
    """

    metadata: PackMetadata
    tokenizer_json: str
    tables: dict[str, NDArray[Any]]
    query_weights: NDArray[np.float32]


def write_pack(
    path: Path,
    metadata: PackMetadata,
    tokenizer_json: str,
    tables: dict[str, NDArray[Any]],
    query_weights: NDArray[np.float32],
    *,
    overwrite: bool = False,
) -> PackMetadata:
    """Write a pack; an existing pack is replaced only with ``overwrite``.

    Returns:
        The metadata as written, with checksums, space ids and pack id.

    Raises:
        InputError: the place is taken.
    """
    from safetensors.numpy import save_file

    path = Path(path)
    refuse_taken(path, overwrite)
    with folder_swap.new_folder(path) as temporary:
        (temporary / TOKENIZER).write_text(tokenizer_json, encoding="utf-8")
        save_file({k: np.ascontiguousarray(v) for k, v in tables.items()}, temporary / DENSE)
        save_file({"query_weight": np.ascontiguousarray(query_weights)}, temporary / SPARSE)
        sealed = metadata.sealed({name: _entry(temporary / name) for name in DATA_FILES})
        (temporary / PACK_JSON).write_text(sealed.to_json(), encoding="utf-8")
        (temporary / CARD).write_text(model_card(sealed), encoding="utf-8")
        read_pack(temporary)
    return sealed


def read_pack(path: Path, *, verify: bool = True) -> PackContents:
    """Open a pack, tables memory-mapped.

    Args:
        path: the pack's folder.
        verify: also compare every file's SHA-256 (sizes are always checked).

    Raises:
        PackError: what is missing, damaged or does not fit, and how to mend it.
    """
    path = Path(path)
    metadata = read_metadata(path)
    for name in DATA_FILES:
        _check_file(path / name, metadata.files.get(name), verify=verify)
    dense, sparse = metadata.dense, metadata.sparse
    tables = map_tensors(path / DENSE)
    expected: dict[str, tuple[tuple[int, ...], str]] = {}
    for name in dense.tables:
        expected[f"table.{name}"] = ((dense.rows, dense.dims), dense.dtype)
        if dense.dtype == "int8":
            expected[f"scale.{name}"] = ((dense.rows,), "float32")
    _check_tensors(path / DENSE, tables, expected)
    weights = map_tensors(path / SPARSE)
    _check_tensors(path / SPARSE, weights, {"query_weight": ((dense.rows,), "float32")})
    for ignored in (dense.ignored_ids, sparse.ignored_ids):
        if ignored and not 0 <= min(ignored) <= max(ignored) < dense.rows:
            raise PackError(f"{path}: ignored ids exceed {dense.rows} rows", "rebuild the pack")
    text = (path / TOKENIZER).read_text(encoding="utf-8")
    return PackContents(metadata, text, tables, weights["query_weight"])


def read_metadata(path: Path) -> PackMetadata:
    """Only ``pack.json`` of a pack, parsed and checked against its own seal."""
    path = Path(path)
    if not path.is_dir():
        raise PackError(f"no query pack at {path}", "make one with 'steelyard pack distill'")
    file = path / PACK_JSON
    if not file.is_file():
        raise PackError(f"{path} has no {PACK_JSON}, so it is not a query pack")
    return PackMetadata.from_json(file.read_bytes(), str(file))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _entry(path: Path) -> FileEntry:
    return FileEntry(path.stat().st_size, sha256_of(path))


def refuse_taken(path: Path, overwrite: bool) -> None:
    """Raise an InputError if a pack cannot be written here; called before hours of work."""
    folder_swap.refuse_taken(path, PACK_JSON, "a query pack", overwrite)


def _check_file(path: Path, entry: FileEntry | None, *, verify: bool) -> None:
    remedy = "copy the pack again or rebuild it"
    if entry is None:
        raise PackError(f"pack.json has no checksum of {path.name}", "rebuild the pack")
    if not path.is_file():
        raise PackError(f"{path} is missing", remedy)
    size = path.stat().st_size
    if size != entry.bytes:
        raise PackError(f"{path} has {size} bytes, pack.json says {entry.bytes}", remedy)
    if verify and (digest := sha256_of(path)) != entry.sha256:
        raise PackError(
            f"{path} has SHA-256 {digest[:12]}..., pack.json says {entry.sha256[:12]}...", remedy
        )


def _check_tensors(
    path: Path,
    tensors: dict[str, NDArray[Any]],
    expected: dict[str, tuple[tuple[int, ...], str]],
) -> None:
    if set(tensors) != set(expected):
        raise PackError(
            f"{path} holds {sorted(tensors)}, pack.json asks for {sorted(expected)}",
            "rebuild the pack",
        )
    for name, (shape, dtype) in expected.items():
        found = tensors[name]
        if found.shape != shape or found.dtype != np.dtype(dtype):
            raise PackError(
                f"{path}: {name} is {found.dtype}{list(found.shape)}, pack.json says "
                f"{dtype}{list(shape)}",
                "rebuild the pack",
            )
