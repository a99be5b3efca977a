"""``steelyard tower``: document encoders as ONNX folders."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from steelyard.cli.options import DocumentPromptOption, QueryPromptOption
from steelyard.cli.output import JsonOption, RichProgress, print_pairs, write_json

app = typer.Typer(help="Export document encoders to ONNX.", no_args_is_help=True)


@app.callback()
def towers() -> None:
    """Export document encoders to ONNX."""


@app.command()
def export(
    model: Annotated[
        str,
        typer.Option(help="Model folder, installed package or hub name."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the tower goes.")],
    pooling: Annotated[
        str | None, typer.Option(help="cls, mean or last; default: the model's own.")
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(min=1, help="Cut texts to this many tokens; default: the model's."),
    ] = None,
    query_prompt: QueryPromptOption = None,
    document_prompt: DocumentPromptOption = None,
    method: Annotated[
        str,
        typer.Option(help="torch, or optimum (installed on first use, apart: about 6 GB)."),
    ] = "torch",
    overwrite: Annotated[bool, typer.Option(help="Replace a tower that is there.")] = False,
    json: JsonOption = None,
) -> None:
    """Make an ONNX tower of a model, and prove that it gives the model's vectors."""
    from steelyard.encoders.documents.onnx.export import ExportJob, export_tower

    given = {"query": query_prompt, "document": document_prompt}
    prompts = {role: text for role, text in given.items() if text is not None}
    job = ExportJob(model, pooling, max_length, prompts, method)
    with RichProgress().stage(f"export with {method} and verify"):
        made = export_tower(job, out, overwrite=overwrite)
    print_pairs(
        {
            "tower": made.folder,
            "pooling": made.settings.pooling,
            "prompts": made.settings.prompts,
            "max length": f"{made.settings.max_length} tokens",
            "dimensions": made.dims,
            "size": f"{made.bytes / 1e6:,.1f} MB",
            "differs by": f"{made.max_difference:.1e} at most from the model's unit vectors",
        }
    )
    write_json({**asdict(made), "folder": str(made.folder)}, json)
