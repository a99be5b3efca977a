"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Corpus = Annotated[
    Path, typer.Argument(metavar="CORPUS", help="BEIR folder, or a .jsonl[.gz] file of documents.")
]
PackOption = Annotated[Path, typer.Option("--pack", metavar="PACK", help="Query pack folder.")]
EngineOption = Annotated[
    str,
    typer.Option(
        "--to", metavar="URL", help="Engine, e.g. 'milvus-lite:///path/file.db?name=demo'."
    ),
]
PrecisionOption = Annotated[
    str,
    typer.Option(help="Document encoder: auto (bfloat16 where native), float32 or bfloat16."),
]
ShardsOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of encoded documents; default: the cache."),
]
OverwriteOption = Annotated[bool, typer.Option(help="Replace a pack that is there.")]
ModelMovedOption = Annotated[
    str | None,
    typer.Option("--model", help="Where the document encoder is now, if it has moved."),
]
MetadataOption = Annotated[
    str,
    typer.Option("--metadata", help="Declared metadata fields, e.g. 'price:float,brand:keyword'."),
]
MaxRejectedOption = Annotated[
    int | None, typer.Option(min=0, help="Stop when more lines are no documents.")
]
