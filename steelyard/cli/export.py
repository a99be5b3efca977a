"""``steelyard pack export``: a pack's query side for other libraries and for the cluster."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from steelyard.cli.output import JsonOption, print_pairs, write_json
from steelyard.encoders.export.formats import Export, export_pack


def export(
    pack: Annotated[Path, typer.Argument(metavar="PACK", help="Query pack folder.")],
    format: Annotated[
        str, typer.Option(help="onnx, sentence-transformers, model2vec or opensearch.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the export goes.")],
    instruction: Annotated[
        str | None, typer.Option(help="Which table; default: the pack's.")
    ] = None,
    dims: Annotated[
        int | None, typer.Option(min=1, help="Keep the first N columns; default: all.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, float16 or int8; default: the pack's.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an export that is there.")] = False,
    json: JsonOption = None,
) -> None:
    """Write the query side for onnxruntime, sentence-transformers, model2vec or OpenSearch."""
    made = export_pack(
        pack,
        format,
        out,
        instruction=instruction,
        dims=dims,
        dtype=dtype,
        overwrite=overwrite,
    )
    print_pairs(_summary(made))
    write_json(asdict(made), json)


def _summary(made: Export) -> dict[str, Any]:
    if made.max_difference is None:
        verified = "no"
    else:
        verified = f"{made.verified_with}: within {made.max_difference:.1e} of the pack"
    rows = {
        "export": f"{made.path} ({made.format})",
        "pack": made.pack_id,
        "dense": f"{made.instruction}, {made.dims} dims, {made.dtype} ({made.dense_space})",
        "files": ", ".join(f"{name} {file.bytes:,}" for name, file in made.files.items()),
        "verified": verified,
    }
    if made.notes:
        rows["note"] = "\n".join(made.notes)
    return rows
