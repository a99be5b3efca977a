"""``steelyard bench sizes`` and ``steelyard bench fusion``: quality against a setting."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from steelyard.cli.options import (
    AdapterMovedOption,
    DeviceOption,
    EngineOption,
    ModelMovedOption,
    PackOption,
    PrecisionOption,
)
from steelyard.cli.output import JsonOption, RichProgress, print_rows, write_json
from steelyard.errors import InputError

if TYPE_CHECKING:
    from steelyard.encoders.documents.protocol import FullModel

JudgedCorpus = Annotated[
    Path, typer.Argument(metavar="CORPUS", help="BEIR folder with queries and qrels.")
]
SplitOption = Annotated[
    str, typer.Option(help="qrels/<split>.tsv; choose settings on train, report test.")
]
CandidatesOption = Annotated[
    int | None, typer.Option(min=100, help="Candidates of each arm; default: the pack's.")
]


def sizes(
    corpus: JudgedCorpus,
    pack: PackOption,
    to: EngineOption,
    dims: Annotated[
        str | None,
        typer.Option(help="First components kept. Default: 64,128,256 and the pack's own."),
    ] = None,
    max_terms: Annotated[
        str, typer.Option(help="Heaviest terms kept a document; 'all' keeps what is stored.")
    ] = "32,64,128,256",
    dtypes: Annotated[str, typer.Option(help="Of the table.")] = "float32,float16,int8",
    fusion: Annotated[
        str | None, typer.Option(help="min-max or rrf; default: the pack's.")
    ] = None,
    split: SplitOption = "test",
    candidates: CandidatesOption = None,
    json: JsonOption = None,
) -> None:
    """Quality against size: dimensions x terms x table type, on the stored vectors."""
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.eval.collection import read_judged
    from steelyard.eval.sweeps.results import sweep_to_dict
    from steelyard.eval.sweeps.sizes import SizeGrid, default_dims, measure_sizes
    from steelyard.eval.sweeps.stored import stored_vectors
    from steelyard.plugin.fusion import Fusion

    judged, queries, progress = read_judged(corpus, split), QueryEncoder.load(pack), RichProgress()
    grid = SizeGrid(
        _numbers(dims, "--dims") if dims else default_dims(queries.dims),
        [None if one == "all" else _number(one, "--max-terms") for one in _parts(max_terms)],
        _parts(dtypes),
    )
    defaults = queries.metadata.fusion
    result = measure_sizes(
        stored_vectors(queries, to, progress),
        queries,
        judged,
        grid,
        progress,
        fusion=Fusion.of_pack(defaults, fusion),
        candidates=candidates or defaults.candidates,
    )
    rows = [
        [
            f"{point.dims} x {point.max_terms or 'all'}, {point.dtype}",
            f"{point.index_bytes / 1e6:.2f}",
            f"{point.table_bytes / 1e6:.2f}",
            *(f"{one.ndcg10:.4f}" for one in (point.lookup, point.sparse, point.fused)),
            f"{point.fused.recall100:.4f}",
        ]
        for point in result.points
    ]
    columns = ["dims x terms, table", "index MB", "table MB", "look-up"]
    columns += [queries.metadata.sparse.kind, "fused", "R@100"]
    print_rows(f"{judged.name}, nDCG@10", columns, rows)
    write_json(sweep_to_dict(replace(result, command=command_line())), json)


def fusion(
    corpus: JudgedCorpus,
    pack: PackOption,
    to: EngineOption,
    full: Annotated[bool, typer.Option(help="Also with queries of the full model.")] = False,
    step: Annotated[float, typer.Option(help="Between two weights.")] = 0.05,
    split: SplitOption = "test",
    candidates: CandidatesOption = None,
    model: ModelMovedOption = None,
    adapter: AdapterMovedOption = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = None,
    json: JsonOption = None,
) -> None:
    """Quality against the dense arm's weight, from the sparse arm alone to the dense one."""
    from steelyard.encoders.documents.from_pack import open_dense_encoder
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.eval.collection import read_judged
    from steelyard.eval.sweeps.fusion import measure_fusion, weights
    from steelyard.eval.sweeps.results import sweep_to_dict
    from steelyard.eval.sweeps.stored import stored_vectors

    weights(step)  # before anything is opened
    judged, queries, progress = read_judged(corpus, split), QueryEncoder.load(pack), RichProgress()

    def open_full_model() -> FullModel:
        return open_dense_encoder(
            queries.metadata, model=model, adapter=adapter, precision=precision, device=device
        )

    result = measure_fusion(
        stored_vectors(queries, to, progress),
        queries,
        judged,
        open_full_model if full else None,
        progress,
        candidates=candidates or queries.metadata.fusion.candidates,
        step=step,
    )
    rows = [
        [
            f"{point.dense}+{result.sparse}",
            point.method,
            "" if point.dense_weight is None else f"{point.dense_weight:.2f}",
            f"{point.fused.ndcg10:.4f}",
            f"{point.fused.recall100:.4f}",
        ]
        for point in result.points
    ]
    print_rows(judged.name, ["system", "fusion", "dense weight", "nDCG@10", "R@100"], rows)
    write_json(sweep_to_dict(replace(result, command=command_line())), json)


def command_line() -> str:
    """What this process was called with, without secrets."""
    from steelyard.indexer.reporting.redaction import redact_arguments

    return shlex.join(["steelyard", *redact_arguments(sys.argv[1:])])


def _parts(text: str) -> list[str]:
    return list(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))


def _number(text: str, option: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InputError(f"cannot read {text!r} in {option}", "write 64,128,256") from error


def _numbers(text: str, option: str) -> Sequence[int]:
    return [_number(part, option) for part in _parts(text)]
