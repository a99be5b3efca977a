"""A pack with its tables in another dtype: the same spaces, so it serves the same index."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from steelyard.encoders.pack.files import read_pack, write_pack
from steelyard.encoders.pack.metadata import PackMetadata
from steelyard.encoders.query.tables import LookupTable, table_tensors


def convert_pack(source: Path, out: Path, dtype: str, *, overwrite: bool = False) -> PackMetadata:
    """Write a copy of a pack with float32, float16 or int8 tables.

    Raises:
        PackError: the source is damaged.
        InputError: an unknown dtype, or the place is taken.
    """
    contents = read_pack(source)
    metadata = contents.metadata
    everything = np.arange(metadata.dense.rows, dtype=np.int32)
    tensors = {}
    for name in metadata.dense.tables:
        table = LookupTable(contents.tables[f"table.{name}"], contents.tables.get(f"scale.{name}"))
        tensors.update(table_tensors(table.gather(everything), dtype, name))
    return write_pack(
        out,
        replace(
            metadata,
            dense=replace(metadata.dense, dtype=dtype),
            provenance={**metadata.provenance, "converted_from": metadata.pack_id},
        ),
        contents.tokenizer_json,
        tensors,
        np.asarray(contents.query_weights),
        overwrite=overwrite,
    )
