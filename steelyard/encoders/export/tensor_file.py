"""A table written to a .safetensors file slice by slice.

The library's own writer wants every tensor in memory, and copies it. The format is 8 bytes of
header length, a JSON header padded with spaces, then raw numbers.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.export.source import ExportSource

_NAMES = {"float32": "F32", "float16": "F16", "int8": "I8", "int64": "I64"}


def write_table(
    path: Path,
    source: ExportSource,
    name: str,
    *,
    factors: str | None = None,
    mapping: str | None = None,
) -> None:
    """Write the table as tensor ``name`` ``[rows, dims]``.

    Args:
        path: the .safetensors file.
        source: what is exported.
        name: of the table.
        factors: also a float32 tensor ``[rows]`` of this name, the factor of each row: the scales
            of int8, ones otherwise.
        mapping: also an int64 tensor ``[rows]`` of this name, each token's row: its own id.
    """
    parts = [(name, source.dtype, [source.rows, source.dims])]
    if mapping is not None:
        parts.append((mapping, "int64", [source.rows]))
    if factors is not None:
        parts.append((factors, "float32", [source.rows]))
    header, position = {}, 0
    for tensor, dtype, shape in parts:
        end = position + int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        header[tensor] = {
            "dtype": _NAMES[dtype],
            "shape": shape,
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    scales: list[NDArray[np.float32]] = []
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for block, scale in source.blocks():
            stream.write(block.data)
            scales.append(np.ones(len(block), dtype=np.float32) if scale is None else scale)
        if mapping is not None:
            stream.write(np.arange(source.rows, dtype=np.int64).data)
        if factors is not None:
            stream.write(np.concatenate(scales).data)
