"""What an export reads: one instruction's table of a pack, cut to some columns, in one dtype."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.pack.files import read_pack
from steelyard.encoders.pack.metadata import PackMetadata
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.encoders.query.tables import LookupTable, check_dtype, quantise_int8
from steelyard.errors import InputError
from steelyard.types import DenseVectors, l2_normalise

BLOCK_BYTES = 1 << 24
"""Float32 bytes of a table that are worked on at a time."""

PROTOBUF_LIMIT = 2**31 - 1
"""Largest protobuf message, in bytes: a larger ONNX table goes to a file of its own."""


@dataclass(frozen=True)
class ExportSource:
    """One table of a pack on its way out.

    Attributes:
        encoder: the pack's own query encoder, which an export has to equal.
        instruction: name of the table.
        dims: columns kept, the first of the table's.
        dtype: of the exported table: ``float32``, ``float16`` or ``int8``.
        protobuf_limit: bytes that one ONNX file may have.
    """

    encoder: QueryEncoder
    instruction: str
    dims: int
    dtype: str
    protobuf_limit: int = PROTOBUF_LIMIT

    @property
    def metadata(self) -> PackMetadata:
        """pack.json."""
        return self.encoder.metadata

    @property
    def rows(self) -> int:
        """Rows of the table: the largest token id + 1."""
        return self.metadata.dense.rows

    @property
    def table_bytes(self) -> int:
        """Size of the exported table, without the scales of int8."""
        return self.rows * self.dims * np.dtype(self.dtype).itemsize

    @property
    def dense_space(self) -> str:
        """Space that the documents' vectors must have; cut columns are another space."""
        dense = replace(self.metadata.dense, dims=self.dims)
        return replace(self.metadata, dense=dense).dense_space.id

    def blocks(self) -> Iterator[tuple[NDArray[Any], NDArray[np.float32] | None]]:
        """The table ``[rows, dims]`` in slices of rows, each with its scales ``[n]`` if int8.

        Rows of ignored tokens are zero, so they take no part in a sum, nor in a mean that is
        normalised afterwards. Only one slice is in memory at a time.

        Raises:
            InputError: a value is too large for float16.
        """
        table = self.encoder.tables[self.instruction]
        ignored = np.asarray(sorted(self.metadata.dense.ignored_ids), dtype=np.int64)
        step = max(1, BLOCK_BYTES // (4 * table.dims))
        for start in range(0, self.rows, step):
            ids = np.arange(start, min(start + step, self.rows), dtype=np.int32)
            block, scale = _convert(table, ids, self.dims, self.dtype)
            here = ignored[(ignored >= start) & (ignored <= ids[-1])] - start
            block[here] = 0
            yield np.ascontiguousarray(block), scale

    def expected(self, texts: Sequence[str]) -> DenseVectors:
        """What the pack itself answers, float32 ``[n, dims]``, cut as the export is."""
        whole = self.encoder.encode_dense(texts, instruction=self.instruction)
        return l2_normalise(np.ascontiguousarray(whole[:, : self.dims]))


def open_source(
    pack: Path,
    *,
    instruction: str | None = None,
    dims: int | None = None,
    dtype: str | None = None,
    protobuf_limit: int = PROTOBUF_LIMIT,
) -> ExportSource:
    """Open a pack for an export; None is the pack's own default.

    Raises:
        PackError: the pack is missing or damaged.
        InputError: no such instruction, dims out of range, or an unknown dtype.
    """
    encoder = QueryEncoder(read_pack(pack), str(pack))
    dense = encoder.metadata.dense
    name = dense.default_table if instruction is None else instruction
    if name not in dense.tables:
        raise InputError(
            f"the pack has no instruction {name!r}", f"known: {', '.join(sorted(dense.tables))}"
        )
    columns = dense.dims if dims is None else dims
    if not 1 <= columns <= dense.dims:
        raise InputError(
            f"{columns} dims of a pack that has {dense.dims}", f"choose 1 to {dense.dims}"
        )
    kind = dense.dtype if dtype is None else dtype
    check_dtype(kind)
    return ExportSource(encoder, name, columns, kind, protobuf_limit)


def _convert(
    table: LookupTable, ids: NDArray[np.int32], dims: int, dtype: str
) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    """Rows of these tokens, always a copy."""
    if str(table.rows.dtype) == dtype:
        # The pack's own numbers, so that nothing is rounded twice.
        scale = None if table.scale is None else table.scale[ids].copy()
        return table.rows[ids][:, :dims], scale
    values = table.gather(ids)[:, :dims]
    if dtype == "int8":
        return quantise_int8(values)
    with np.errstate(over="ignore"):
        converted = values.astype(dtype)
    if not np.isfinite(converted).all():
        raise InputError(
            f"a table value of {float(np.abs(values).max()):g} is too large for {dtype}",
            "use --dtype float32 or int8",
        )
    return converted, None
