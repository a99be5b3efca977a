"""``steelyard export pyserini``: an index and its queries in the form that Pyserini reads."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steelyard.cli.options import PackOption
from steelyard.cli.output import JsonOption, RichProgress, print_pairs, write_json

if TYPE_CHECKING:
    from steelyard.eval.pyserini.export import PyseriniExport

app = typer.Typer(no_args_is_help=True, help="Write indexed documents in other tools' forms.")


@app.callback()
def exports() -> None:
    """Write indexed documents in other tools' forms."""


@app.command()
def pyserini(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="Folder of encoded documents (--shards), or an engine's URL."
        ),
    ],
    pack: PackOption,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the export goes.")],
    queries: Annotated[
        Path | None,
        typer.Option(metavar="CORPUS", help="BEIR folder whose queries and qrels go with it."),
    ] = None,
    split: Annotated[str, typer.Option(help="qrels/<split>.tsv.")] = "test",
    arms: Annotated[
        str | None, typer.Option(help="dense, sparse or both; default: what the source has.")
    ] = None,
    query_scale: Annotated[
        int, typer.Option(min=1, help="Pyserini's integer query weights are ours times this.")
    ] = 10_000,
    file_megabytes: Annotated[
        int, typer.Option(min=1, help="A file of the collection ends after so many.")
    ] = 256,
    overwrite: Annotated[bool, typer.Option(help="Replace an export that is there.")] = False,
    json: JsonOption = None,
) -> None:
    """Write an impact collection, a FAISS folder, topics, encoded queries and qrels."""
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.eval.collection import read_judged
    from steelyard.eval.pyserini.export import export_pyserini
    from steelyard.eval.pyserini.source import open_source

    judged = None if queries is None else read_judged(queries, split)
    encoder = QueryEncoder.load(pack)
    with open_source(source, encoder) as documents:
        made = export_pyserini(
            documents,
            encoder,
            out,
            RichProgress(),
            judged=judged,
            arms=None if arms is None else [arm.strip() for arm in arms.split(",")],
            query_scale=query_scale,
            file_bytes=file_megabytes * 2**20,
            overwrite=overwrite,
        )
    print_pairs(_summary(made, out))
    write_json(asdict(made), json)


def _summary(made: PyseriniExport, out: Path) -> dict[str, Any]:
    rows: dict[str, Any] = {"export": out, "arms": ", ".join(made.arms)}
    if made.files:
        rows["collection"] = (
            f"{made.documents:,} documents in {made.files} files, {made.postings:,} postings"
        )
        rows["lucene"] = (
            f"will count {made.lucene_documents:,}: {made.empty:,} have no term, and Anserini "
            "leaves them out"
        )
    if "dense" in made.arms:
        rows["faiss"] = f"{made.faiss_documents:,} vectors"
    if made.queries is not None:
        rows["queries"] = f"{made.queries.count:,}, {made.queries.judgements:,} judgements"
    rows["commands"] = out / "README.md"
    return rows
