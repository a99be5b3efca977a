"""``steelyard search``: one query, from text to titles."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from steelyard.cli.options import EngineOption, FilterOption
from steelyard.cli.output import JsonOption, console, status, write_json
from steelyard.errors import InputError
from steelyard.plugin.search.answer import Answer, ArmHit, Hit, TermMatch
from steelyard.plugin.search.recency import Recency

_TERMS_SHOWN = 8


def search(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The query.")],
    pack: Annotated[
        Path, typer.Option(metavar="PACK", help="Query pack, or a folder of query packs.")
    ],
    to: EngineOption,
    k: Annotated[int, typer.Option("--k", min=1, help="Number of hits.")] = 10,
    offset: Annotated[int, typer.Option(min=0, help="Skip so many hits.")] = 0,
    filter: FilterOption = None,
    feedback: Annotated[
        int, typer.Option(min=0, help="Refine by so many best documents; 0 is off.")
    ] = 0,
    arms: Annotated[
        str | None,
        typer.Option(help="Of dense,sparse,match; default: those with vectors that there are."),
    ] = None,
    fusion: Annotated[
        str | None, typer.Option(help="min-max or rrf; default: the pack's.")
    ] = None,
    fused_by_engine: Annotated[
        bool, typer.Option(help="Let the engine join the arms (OpenSearch).")
    ] = False,
    title_boost: Annotated[
        float | None, typer.Option(help="Of the match arm: what a word in the title counts.")
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(min=1, help="Candidates of each arm; default: the pack's.")
    ] = None,
    instruction: Annotated[str | None, typer.Option(help="Name of the pack's table.")] = None,
    recency: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD:DAYS[:WEIGHT]", help="Newer first: half of WEIGHT (.5) is lost in DAYS."
        ),
    ] = None,
    highlight: Annotated[
        bool, typer.Option(help="Show where the words are (OpenSearch).")
    ] = False,
    explain: Annotated[bool, typer.Option(help="Show which tokens matched, and fusion.")] = False,
    group_by_parent: Annotated[
        bool, typer.Option("--group-by-parent", help="Only the best passage of each document.")
    ] = False,
    on_engine_failure: Annotated[
        str, typer.Option(help="raise; degrade: answer without an arm that fails.")
    ] = "raise",
    deadline: Annotated[
        float | None, typer.Option(help="Seconds that the search may take.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Search an index with both arms, no model."""
    from steelyard.plugin.filter_json import parse_filter
    from steelyard.plugin.searcher import Searcher
    from steelyard.plugin.text_match import TextMatch

    condition = None if filter is None else parse_filter(filter)
    newer = None if recency is None else _recency(recency)
    with Searcher.open(
        pack,
        to,
        fusion=fusion,
        candidates=candidates,
        arms=None if arms is None else tuple(part.strip() for part in arms.split(",")),
        on_engine_failure=on_engine_failure,
        deadline=deadline,
        fused_by_engine=fused_by_engine,
        text_match=None if title_boost is None else TextMatch(title_boost),
    ) as searcher:
        answer = searcher.search(
            text,
            k,
            offset=offset,
            filter=condition,
            feedback=feedback,
            instruction=instruction,
            recency=newer,
            highlight=highlight,
            explain=explain,
            group_by_parent=group_by_parent,
        )
    print_answer(answer, offset)
    write_json(asdict(answer), json)


def print_answer(answer: Answer, offset: int = 0) -> None:
    """Hits with title, and what each arm said."""
    if answer.empty:
        status.print("  no token of this query is known", markup=False)
    if answer.truncated:
        status.print("  the query was cut to the pack's limit", markup=False)
    for what, why in answer.missing.items():
        status.print(f"  without {what}: {why}", markup=False, soft_wrap=True)
    if answer.behind:
        status.print(f"  an older generation answered: {answer.behind}", markup=False)
    for rank, hit in enumerate(answer.hits, start=offset + 1):
        title = ""
        if hit.document is not None:
            title = hit.document.title or hit.document.text[:80]
        arms = {"dense": hit.dense, "sparse": hit.sparse, "match": hit.match}
        said = "  ".join(
            f"{arm} {_arm(found)}" for arm, found in arms.items() if arm != "match" or found
        )
        console.print(
            f"{rank:3d}. [bold]{escape(title)}[/bold]\n"
            f"     {escape(hit.id)}  score {hit.score:.4f}  {said}",
            soft_wrap=True,
        )
        _print_more(hit)
    if not answer.hits and not answer.empty:
        status.print("  nothing found", markup=False)


def _print_more(hit: Hit) -> None:
    for field, fragments in hit.highlights.items():
        for fragment in fragments:
            console.print(f"     {field}: {fragment}", markup=False, soft_wrap=True)
    why = hit.explanation
    if why is None:
        return
    parts = " + ".join(f"{arm} {part:.4f}" for arm, part in why.arms.items())
    decay = "" if why.recency is None else f", times {why.recency:.4f} for its age"
    console.print(f"     {why.fusion}: {parts or 'by the engine'}{decay}", markup=False)
    for arm, terms in (("sparse", why.sparse), ("dense", why.dense)):
        if terms:
            shown = "  ".join(_term(term) for term in terms[:_TERMS_SHOWN])
            more = f"  (+{len(terms) - _TERMS_SHOWN})" if len(terms) > _TERMS_SHOWN else ""
            console.print(f"     {arm}: {shown}{more}", markup=False, soft_wrap=True)


def _term(term: TermMatch) -> str:
    if term.document is None:
        return f"{term.token} {term.score:+.3f}"
    return f"{term.token} {term.query:.3g} x {term.document:.3g} = {term.score:.3g}"


def _arm(hit: ArmHit | None) -> str:
    return "-" if hit is None else f"{hit.score:.3f} (rank {hit.rank})"


def _recency(text: str) -> Recency:
    field, days, weight = [*text.split(":"), "0.5", ""][:3]
    try:
        return Recency(field, float(days), float(weight))
    except ValueError as error:
        raise InputError(
            f"cannot read --recency {text!r}", "FIELD:DAYS or FIELD:DAYS:WEIGHT"
        ) from error
