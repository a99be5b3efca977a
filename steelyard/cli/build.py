"""``steelyard pack build``: a query pack for a causal language model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from steelyard.cli.options import TASK, CausalPrecisionOption, DeviceOption, OverwriteOption
from steelyard.cli.output import JsonOption, RichProgress, print_pairs, write_json
from steelyard.cli.summary import summary
from steelyard.errors import InputError


def build(
    model: Annotated[
        str,
        typer.Option(help="Causal language model: folder, GGUF file, hub name, package."),
    ],
    out: Annotated[Path, typer.Option(metavar="PACK", help="Where the pack goes.")],
    adapter: Annotated[
        str | None, typer.Option(metavar="DIR", help="LoRA adapter, as peft writes it.")
    ] = None,
    task: Annotated[
        str, typer.Option(help="What queries ask for: the default instruction.")
    ] = TASK,
    instruction: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=TASK", help="A further instruction; may be repeated."),
    ] = None,
    sparse: Annotated[str, typer.Option(help="Kind of the sparse arm: lm-head.")] = "lm-head",
    max_length: Annotated[int, typer.Option(min=2, help="Tokens of a document.")] = 512,
    query_max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a query.")] = 512,
    dims: Annotated[
        int | None, typer.Option(min=1, help="First components to keep (MRL); default: all.")
    ] = None,
    max_terms: Annotated[
        int, typer.Option(min=0, help="Heaviest terms of a document; 0 keeps all.")
    ] = 256,
    dtype: Annotated[str, typer.Option(help="Table: float32, float16 or int8.")] = "float32",
    gguf_file: Annotated[
        str | None, typer.Option(help="Which GGUF file of the folder or repository.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Hub revision of the model.")] = None,
    cased: Annotated[bool, typer.Option(help="Do not lower-case texts.")] = False,
    all_rows: Annotated[
        bool, typer.Option("--all-rows", help="Also make rows of tokens that no query can have.")
    ] = False,
    rows_for: Annotated[
        Path | None,
        typer.Option(
            metavar="QUERIES.jsonl",
            help="Make only the rows that these queries need, to measure them in seconds; "
            "other queries lack words.",
        ),
    ] = None,
    precision: CausalPrecisionOption = "auto",
    device: DeviceOption = None,
    name: Annotated[str, typer.Option(help="Name of the pack; default: from the model.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the pack, for its card.")] = "",
    overwrite: OverwriteOption = False,
    json: JsonOption = None,
) -> None:
    """Build the query tables of a causal language model (LightRetriever)."""
    from steelyard.encoders.causal.build import BuildJob, build_pack
    from steelyard.encoders.pack.metadata import DEFAULT_TABLE
    from steelyard.eval.collection import read_queries

    tasks = {DEFAULT_TABLE: task}
    for entry in instruction or []:
        key, found, text = entry.partition("=")
        if not found or not key or key in tasks:
            raise InputError(f"--instruction {entry!r}", "write a new NAME=TASK")
        tasks[key] = text
    job = BuildJob(
        model=model,
        tasks=tasks,
        adapter=adapter,
        gguf_file=gguf_file,
        revision=revision,
        sparse=sparse,
        max_length=max_length,
        dims=dims,
        max_terms=max_terms or None,
        query_max_tokens=query_max_tokens,
        lowercase=not cased,
        all_rows=all_rows,
        rows_for=None if rows_for is None else [q.text for q in read_queries(rows_for)[0]],
        dtype=dtype,
        precision=precision,
        device=device,
        name=name,
        licence=licence,
    )
    metadata = build_pack(job, out, RichProgress(), overwrite=overwrite)
    print_pairs(summary(metadata))
    write_json(asdict(metadata), json)
