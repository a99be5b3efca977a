"""Memory-mapped reading of .safetensors files.

The safetensors library copies a tensor when it is read into NumPy. A query table can be larger
than a query server wants to hold, and a query touches a few rows of it, so the tensors are
mapped straight from the file: 8 bytes of header length, a JSON header, then raw numbers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelyard.errors import PackError

_DTYPES = {"F32": np.float32, "F16": np.float16, "I8": np.int8}
_REMEDY = "the file is damaged: copy the pack again or rebuild it"


def map_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Read-only views of all tensors in a file; nothing is loaded until it is used.

    Raises:
        PackError: the header is not readable or does not fit the file's size.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        prefix = stream.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or 8 + length > size:
            raise PackError(f"{path}: a header of {length} bytes in a file of {size}", _REMEDY)
        try:
            header: dict[str, Any] = json.loads(stream.read(length))
        except ValueError as error:
            raise PackError(f"{path}: unreadable header: {error}", _REMEDY) from error
    return {
        name: _map(path, entry, 8 + length, size, name)
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _map(path: Path, entry: dict[str, Any], start: int, size: int, name: str) -> NDArray[Any]:
    try:
        dtype = np.dtype(_DTYPES[entry["dtype"]])
        shape = tuple(int(n) for n in entry["shape"])
        begin, end = (int(n) for n in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise PackError(f"{path}: tensor {name!r} has a bad header: {error}", _REMEDY) from error
    needed = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if end - begin != needed or start + end > size:
        raise PackError(
            f"{path}: tensor {name!r} needs {needed} bytes, its entry has {end - begin} of a "
            f"file of {size}",
            _REMEDY,
        )
    if needed == 0:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=start + begin, shape=shape)
