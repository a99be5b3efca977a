"""The formats, and the one way to make any of them: write, check in the real consumer, rename."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from steelyard.encoders.export import (
    model2vec_folder,
    onnx_folder,
    opensearch_models,
    sentence_transformers_folder,
)
from steelyard.encoders.export.source import PROTOBUF_LIMIT, ExportSource, open_source
from steelyard.encoders.folder_swap import new_folder, refuse_taken
from steelyard.encoders.pack.files import sha256_of
from steelyard.errors import InputError, PackError
from steelyard.types import DenseVectors


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        write: writes the files into an empty folder and returns notes for the user.
        encode: texts to vectors ``[n, dims]`` by the folder's real consumer.
        runtime: package of the consumer, as it is installed.
        prefix_by: what puts the pack's text_prefix before a query.
    """

    write: Callable[[ExportSource, Path], list[str]]
    encode: Callable[[Path, Sequence[str]], DenseVectors]
    runtime: str
    prefix_by: str


FORMATS = {
    "onnx": Format(onnx_folder.write, onnx_folder.encode, "onnxruntime", "tokenizer.json"),
    "sentence-transformers": Format(
        sentence_transformers_folder.write,
        sentence_transformers_folder.encode,
        "sentence-transformers",
        "the prompt 'query'",
    ),
    "model2vec": Format(
        model2vec_folder.write, model2vec_folder.encode, "model2vec", "tokenizer.json"
    ),
    "opensearch": Format(
        opensearch_models.write, opensearch_models.encode, "onnxruntime", "tokenizer.json"
    ),
}

EXPORT_JSON = "export.json"

PROBES = (
    "does vitamin D prevent fractures?",
    "Heavy documents, WEIGHTLESS queries",
    "the the the the",
    "naïve café, 東京 42% µg/mL -- a+b",
    "x",
)

TOLERANCES = {"float32": 1e-5, "float16": 1e-2, "int8": 1e-1}
"""Largest difference from the pack's own answer, in a component of a unit vector."""


@dataclass(frozen=True)
class FileMade:
    """Size in bytes and SHA-256 of one file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        path: the folder.
        format, instruction, dims, dtype: as exported.
        pack_id: the pack that it was made of.
        dense_space, sparse_space: spaces of the documents that it serves; the sparse one only
            where the sparse arm is part of the export.
        files: by their path in the folder, export.json aside.
        external_data: whether an ONNX table lies in a file of its own.
        verified_with: name and version of the consumer that was asked; None if not installed.
        max_difference: largest difference between its answers and the pack's, in a component.
        notes: where it differs from the pack, for the user.
    """

    path: str
    format: str
    pack_id: str
    dense_space: str
    sparse_space: str | None
    instruction: str
    dims: int
    dtype: str
    files: dict[str, FileMade]
    external_data: bool
    verified_with: str | None
    max_difference: float | None
    notes: list[str]


def export_pack(
    pack: Path,
    format_name: str,
    out: Path,
    *,
    instruction: str | None = None,
    dims: int | None = None,
    dtype: str | None = None,
    overwrite: bool = False,
    protobuf_limit: int = PROTOBUF_LIMIT,
) -> Export:
    """Write a pack in another library's format.

    Args:
        pack: the pack's folder.
        format_name: a key of ``FORMATS``.
        out: the folder to make.
        instruction: name of the table; None is the pack's default.
        dims: columns kept, the first; None is all. Only for models trained to be cut.
        dtype: of the table; None is the pack's own.
        overwrite: whether an older export there is replaced.
        protobuf_limit: bytes that one ONNX file may have.

    Raises:
        InputError: a setting that does not fit the pack or the format, or the place is taken.
        PackError: the pack is damaged, or the consumer's answers differ from the pack's.
        MissingExtraError: the format needs onnx, and it is not installed.
    """
    chosen = FORMATS.get(format_name)
    if chosen is None:
        raise InputError(f"unknown format {format_name!r}", f"choose one of {', '.join(FORMATS)}")
    refuse_taken(out, EXPORT_JSON, "an export", overwrite)
    source = open_source(
        pack, instruction=instruction, dims=dims, dtype=dtype, protobuf_limit=protobuf_limit
    )
    metadata = source.metadata
    with new_folder(out) as folder:
        notes = chosen.write(source, folder)
        runtime, difference = _verify(chosen, source, folder)
        if runtime is None:
            notes.append(f"not verified: the Python package {chosen.runtime} is not installed")
        files = {
            str(file.relative_to(folder).as_posix()): FileMade(
                file.stat().st_size, sha256_of(file)
            )
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }
        made = Export(
            path=str(out),
            format=format_name,
            pack_id=metadata.pack_id,
            dense_space=source.dense_space,
            sparse_space=metadata.spaces.sparse if format_name == "opensearch" else None,
            instruction=source.instruction,
            dims=source.dims,
            dtype=source.dtype,
            files=files,
            external_data=any(name.endswith(".onnx.data") for name in files),
            verified_with=runtime,
            max_difference=difference,
            notes=notes,
        )
        (folder / EXPORT_JSON).write_text(_export_json(made, source, chosen), encoding="utf-8")
    return made


def _verify(chosen: Format, source: ExportSource, folder: Path) -> tuple[str | None, float | None]:
    """Ask the real consumer, if it is there, and compare with the pack."""
    try:
        answers = chosen.encode(folder, PROBES)
    except ModuleNotFoundError:
        return None, None
    expected = source.expected(PROBES)
    if answers.shape != expected.shape:
        raise PackError(
            f"{chosen.runtime} answers {list(answers.shape)} instead of {list(expected.shape)}",
            "report this: the export was not kept",
        )
    difference = float(np.abs(answers - expected).max())
    allowed = TOLERANCES[source.dtype]
    if not difference <= allowed:
        raise PackError(
            f"{chosen.runtime} answers differ from the pack's by {difference:.3g}, allowed are "
            f"{allowed:g}",
            "report this with the pack's tokenizer.json: the export was not kept",
        )
    return f"{chosen.runtime} {version(chosen.runtime)}", difference


def _export_json(made: Export, source: ExportSource, chosen: Format) -> str:
    """export.json: depends on the pack and the settings alone, not on where or when."""
    dense = source.metadata.dense
    value = {
        "format": made.format,
        "pack_id": made.pack_id,
        "dense_space": made.dense_space,
        "sparse_space": made.sparse_space,
        "instruction": made.instruction,
        "dims": made.dims,
        "dtype": made.dtype,
        "text_prefix": dense.text_prefix,
        "text_prefix_by": chosen.prefix_by,
        "query_max_tokens": dense.query_max_tokens,
        "files": {name: asdict(file) for name, file in made.files.items()},
    }
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
