"""``steelyard pack``: make, look at, check, convert and export query packs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from steelyard.cli import build, export, refine
from steelyard.cli.options import (
    Corpus,
    DocumentPromptOption,
    LeanOption,
    MaxRejectedOption,
    MetadataOption,
    OverwriteOption,
    PoolsOption,
    PrecisionOption,
    QueryPromptOption,
    ShardsOption,
)
from steelyard.cli.output import JsonOption, RichProgress, console, print_pairs, write_json
from steelyard.cli.summary import summary
from steelyard.encoders.distillation.settings import DistillationSettings

app = typer.Typer(
    help="Make, look at, check, convert and export query packs.", no_args_is_help=True
)
app.command("build")(build.build)
app.command("refine")(refine.refine)
app.command("export")(export.export)

DEFAULTS = DistillationSettings()

PackArgument = Annotated[Path, typer.Argument(metavar="PACK", help="Query pack folder.")]


@app.command()
def distill(
    corpus: Corpus,
    model: Annotated[
        str,
        typer.Option(
            help="Frozen model: sentence-transformers name or folder, ONNX tower, package."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="PACK", help="Where the pack goes.")],
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")] = 0,
    dtype: Annotated[str, typer.Option(help="Table: float32, float16 or int8.")] = "float32",
    k1: Annotated[float, typer.Option(help="BM25: term frequency saturation.")] = 1.2,
    b: Annotated[float, typer.Option(help="BM25: length normalisation, 0 to 1.")] = 0.75,
    pseudo_queries: Annotated[
        int, typer.Option(min=30, help="Pseudo-queries of all three kinds together.")
    ] = DEFAULTS.pseudo_queries,
    pools: PoolsOption = DEFAULTS.pools,
    lean: LeanOption = DEFAULTS.lean,
    epochs: Annotated[int, typer.Option(min=1)] = DEFAULTS.epochs,
    query_prompt: QueryPromptOption = None,
    document_prompt: DocumentPromptOption = None,
    max_terms: Annotated[
        int | None, typer.Option(min=1, help="Heaviest BM25 terms a document; default: all.")
    ] = None,
    metadata: MetadataOption = "",
    cased: Annotated[bool, typer.Option(help="Keep the case of a cased model.")] = False,
    revision: Annotated[str | None, typer.Option(help="Hub revision of the model.")] = None,
    precision: PrecisionOption = "auto",
    name: Annotated[str, typer.Option(help="Name of the pack; default: from the model.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the pack, for its card.")] = "",
    shards: ShardsOption = None,
    max_rejected: MaxRejectedOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = None,
) -> None:
    """Learn a look-up table for a frozen embedding model, on a corpus's own text."""
    from steelyard.indexer.distillation_job import DistillationJob, distill_pack
    from steelyard.indexer.reading.metadata_fields import parse_fields
    from steelyard.indexer.reading.readers import open_corpus

    job = DistillationJob(
        model=model,
        revision=revision,
        settings=DistillationSettings(
            seed=seed, pseudo_queries=pseudo_queries, pools=pools, lean=lean, epochs=epochs
        ),
        k1=k1,
        b=b,
        lowercase=not cased,
        query_prompt=query_prompt,
        document_prompt=document_prompt,
        max_terms=max_terms,
        fields=parse_fields(metadata),
        dtype=dtype,
        precision=precision,
        name=name,
        licence=licence,
    )
    made = distill_pack(
        open_corpus(corpus),
        job,
        out,
        RichProgress(),
        shards=shards,
        overwrite=overwrite,
        max_rejected=max_rejected,
    )
    print_pairs(summary(made.metadata))
    write_json(asdict(made.metadata), json)


@app.command()
def inspect(pack: PackArgument, json: JsonOption = None) -> None:
    """Show what a pack is."""
    from steelyard.encoders.pack.files import read_metadata

    metadata = read_metadata(pack)
    print_pairs(summary(metadata))
    write_json(asdict(metadata), json)


@app.command()
def verify(pack: PackArgument, json: JsonOption = None) -> None:
    """Check every size, checksum and number of a pack."""
    import numpy as np

    from steelyard.encoders.pack.files import read_pack
    from steelyard.encoders.pack.spaces import vocabulary_hash
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.errors import PackError

    contents = read_pack(pack)
    QueryEncoder(contents, str(pack))
    vocabulary = vocabulary_hash(contents.tokenizer_json)
    if vocabulary != contents.metadata.vocabulary:
        raise PackError(
            f"{pack}: the tokenizer hashes to {vocabulary}, pack.json says "
            f"{contents.metadata.vocabulary}",
            "rebuild the pack",
        )
    for name, tensor in {**contents.tables, "query_weight": contents.query_weights}.items():
        bad = int(np.count_nonzero(~np.isfinite(tensor)))
        if bad:
            raise PackError(f"{pack}: {name} holds {bad} NaN or infinite values", "rebuild it")
    console.print(f"{pack} is whole: {contents.metadata.pack_id}", markup=False)
    write_json({"pack_id": contents.metadata.pack_id, "ok": True}, json)


@app.command()
def convert(
    pack: PackArgument,
    dtype: Annotated[str, typer.Option(help="float32, float16 or int8.")],
    out: Annotated[Path, typer.Option(metavar="PACK", help="Where the new pack goes.")],
    overwrite: OverwriteOption = False,
    json: JsonOption = None,
) -> None:
    """Store the tables in another dtype; the new pack serves the same index."""
    from steelyard.encoders.pack.convert import convert_pack

    metadata = convert_pack(pack, out, dtype, overwrite=overwrite)
    print_pairs(summary(metadata))
    write_json(asdict(metadata), json)
