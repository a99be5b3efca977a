"""``steelyard pack refine``: a query table, taught by a corpus."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from steelyard.cli.options import (
    AdapterMovedOption,
    Corpus,
    DeviceOption,
    FormatOption,
    LeanOption,
    MappingIdOption,
    MappingTextOption,
    MappingTitleOption,
    MaxRejectedOption,
    MetadataOption,
    ModelMovedOption,
    OverwriteOption,
    PackOption,
    PassagesOption,
    PoolsOption,
    PrecisionOption,
    ShardsOption,
)
from steelyard.cli.output import JsonOption, RichProgress, print_pairs, print_rows, write_json
from steelyard.cli.summary import summary
from steelyard.encoders.distillation.estimate import HeldOutEstimate
from steelyard.encoders.distillation.settings import DistillationSettings

DEFAULTS = DistillationSettings()
PSEUDO_QUERIES = 36000
"""Half of what a frozen embedding model's table is learnt from: a language model reads each."""


def refine(
    corpus: Corpus,
    pack: PackOption,
    out: Annotated[Path, typer.Option(metavar="PACK", help="Where the refined pack goes.")],
    instruction: Annotated[
        str | None, typer.Option(help="Name of the table to refine; default: the pack's.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")] = 0,
    pseudo_queries: Annotated[
        int, typer.Option(min=30, help="That the full model reads, of all three kinds together.")
    ] = PSEUDO_QUERIES,
    pools: PoolsOption = DEFAULTS.pools,
    lean: LeanOption = DEFAULTS.lean,
    epochs: Annotated[int, typer.Option(min=0, help="0 leaves the table.")] = DEFAULTS.epochs,
    learning_rate: Annotated[
        float, typer.Option(min=0.0, help="Of rows of about unit length.")
    ] = DEFAULTS.learning_rate,
    shards: ShardsOption = None,
    metadata: MetadataOption = "",
    id: MappingIdOption = None,
    title: MappingTitleOption = None,
    text: MappingTextOption = None,
    format: FormatOption = None,
    passages: PassagesOption = None,
    model: ModelMovedOption = None,
    adapter: AdapterMovedOption = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = None,
    max_rejected: MaxRejectedOption = None,
    name: Annotated[str, typer.Option(help="Of the pack; default: the old one's, -refined.")] = "",
    overwrite: OverwriteOption = False,
    json: JsonOption = None,
) -> None:
    """Refine a pack's table on a corpus by look-up distillation; the same index is served."""
    from steelyard.indexer.build import EncodeSettings
    from steelyard.indexer.reading.mapping import FieldMapping
    from steelyard.indexer.reading.metadata_fields import parse_fields
    from steelyard.indexer.reading.readers import open_corpus
    from steelyard.indexer.refinement_job import RefinementJob, refine_pack

    mapping = FieldMapping.parse(id=id, title=title, text=text, metadata=metadata)
    job = RefinementJob(
        instruction=instruction,
        settings=DistillationSettings(
            seed=seed,
            pseudo_queries=pseudo_queries,
            pools=pools,
            lean=lean,
            epochs=epochs,
            learning_rate=learning_rate,
        ),
        encoding=EncodeSettings(
            model=model,
            adapter=adapter,
            precision=precision,
            device=device,
            fields=parse_fields(metadata),
            shards=shards,
            max_rejected=max_rejected,
            passages=passages or "",
        ),
        name=name,
    )
    made = refine_pack(
        open_corpus(corpus, mapping, format), pack, job, out, RichProgress(), overwrite=overwrite
    )
    print_pairs(summary(made.metadata))
    after = made.table.held_out
    print_rows(
        f"on {after.queries} held-out pseudo-queries, against the full model",
        ["table", "cosine", "first ten shared", "RR@10", "kept"],
        [_row("before", made.table.before), _row("refined", after)],
    )
    write_json(asdict(made.metadata), json)


def _row(name: str, kept: HeldOutEstimate) -> list[str]:
    shown = f"{kept.cosine:.4f}", f"{kept.overlap_at_10:.1%}", f"{kept.lookup_rr_at_10:.4f}"
    return [name, *shown, f"{kept.kept:.1%}"]
