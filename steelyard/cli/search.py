"""``steelyard search``: one query, from text to titles."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from steelyard.cli.options import EngineOption, PackOption
from steelyard.cli.output import JsonOption, console, status, write_json
from steelyard.plugin.searcher import Answer, ArmHit


def search(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The query.")],
    pack: PackOption,
    to: EngineOption,
    k: Annotated[int, typer.Option("--k", min=1, help="Number of hits.")] = 10,
    offset: Annotated[int, typer.Option(min=0, help="Skip so many hits.")] = 0,
    feedback: Annotated[
        int, typer.Option(min=0, help="Refine by so many best documents; 0 is off.")
    ] = 0,
    fusion: Annotated[
        str | None, typer.Option(help="min-max or rrf; default: the pack's.")
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(min=1, help="Candidates of each arm; default: the pack's.")
    ] = None,
    instruction: Annotated[str | None, typer.Option(help="Name of the pack's table.")] = None,
    json: JsonOption = None,
) -> None:
    """Search an index with both arms, no model."""
    from steelyard.encoders.pack.files import read_metadata
    from steelyard.plugin.fusion import Fusion
    from steelyard.plugin.searcher import Searcher

    method = Fusion.of_pack(read_metadata(pack).fusion, fusion)
    with Searcher.open(pack, to, fusion=method, candidates=candidates) as searcher:
        answer = searcher.search(
            text, k, offset=offset, feedback=feedback, instruction=instruction
        )
    print_answer(answer, offset)
    write_json(asdict(answer), json)


def print_answer(answer: Answer, offset: int = 0) -> None:
    """Hits with title, and what each arm said."""
    if answer.empty:
        status.print("  no token of this query is known", markup=False)
    if answer.truncated:
        status.print("  the query was cut to the pack's limit", markup=False)
    for rank, hit in enumerate(answer.hits, start=offset + 1):
        title = ""
        if hit.document is not None:
            title = hit.document.title or hit.document.text[:80]
        console.print(
            f"{rank:3d}. [bold]{escape(title)}[/bold]\n"
            f"     {escape(hit.id)}  score {hit.score:.4f}  "
            f"dense {_arm(hit.dense)}  sparse {_arm(hit.sparse)}",
            soft_wrap=True,
        )
    if not answer.hits and not answer.empty:
        status.print("  nothing found", markup=False)


def _arm(hit: ArmHit | None) -> str:
    return "-" if hit is None else f"{hit.score:.3f} (rank {hit.rank})"
