"""Arrays of work that goes on where it stopped: a file is there whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.whole_file import whole_file


def read_array(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """A float32 array that an earlier run left; None where it is missing, damaged or another's."""
    try:
        array: NDArray[np.float32] = np.load(path, allow_pickle=False)
    except Exception:  # damage makes NumPy raise whatever it comes upon
        return None
    return array if array.shape == shape and array.dtype == np.float32 else None


def write_array(path: Path, array: NDArray[np.float32]) -> None:
    """Write under another name, flush, rename."""
    with whole_file(path) as stream:
        np.save(stream, array, allow_pickle=False)
