"""``steelyard adopt``: an index of vectors that someone else wrote, searched without its model."""

from __future__ import annotations

from typing import Annotated

import typer

from steelyard.cli.options import (
    AdapterMovedOption,
    DeviceOption,
    EngineOption,
    MetadataOption,
    ModelMovedOption,
    PackOption,
    PrecisionOption,
)
from steelyard.cli.output import JsonOption, RichProgress, print_pairs, write_json
from steelyard.errors import InputError


def adopt(
    existing: Annotated[
        str, typer.Argument(metavar="INDEX", help="OpenSearch index or Milvus collection.")
    ],
    pack: PackOption,
    to: EngineOption,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OURS=THEIRS",
            help="What it calls id, dense, title, text or a metadata field; repeat it.",
        ),
    ] = None,
    metadata: MetadataOption = "",
    verify: Annotated[
        int, typer.Option(min=0, help="Stored documents to encode again and compare.")
    ] = 20,
    model: ModelMovedOption = None,
    adapter: AdapterMovedOption = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = None,
    json: JsonOption = None,
) -> None:
    """Stamp an existing index of dense vectors with a pack's space; the alias stands for it then.

    The engine URL names the alias. Nothing is written to the documents.
    """
    from steelyard.encoders.documents.from_pack import open_dense_encoder
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.indexer.adoption import adopt_index
    from steelyard.indexer.reading.metadata_fields import parse_fields
    from steelyard.plugin.urls import open_engine

    columns: dict[str, str] = {}
    for pair in column or []:
        ours, _, theirs = pair.partition("=")
        if not ours or not theirs or ours in columns:
            raise InputError(f"cannot read --column {pair!r}", "OURS=THEIRS, each once")
        columns[ours] = theirs
    queries = QueryEncoder.load(pack)
    engine = open_engine(to, must_exist=True, vocabulary=queries.tokenizer)
    try:
        report = adopt_index(
            engine,
            existing,
            queries.metadata,
            columns,
            parse_fields(metadata),
            RichProgress(),
            verify=verify,
            open_encoder=lambda: open_dense_encoder(
                queries.metadata, model=model, adapter=adapter, precision=precision, device=device
            ),
        )
        alias = engine.alias
    finally:
        engine.close()
    least, median = report.cosines or (None, None)
    result = {
        "index": report.generation.name,
        "alias": alias,
        "documents": report.documents,
        "dense space": report.generation.dense_space,
        "columns": report.generation.columns,
        "verified": report.verified,
        "least cosine": least,
        "median cosine": median,
    }
    print_pairs({name: value for name, value in result.items() if value is not None})
    write_json(result, json)
