"""``steelyard encode``: queries to Parquet."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from steelyard.cli.options import PackOption
from steelyard.cli.output import JsonOption, print_pairs, write_json


def encode(
    queries: Annotated[Path, typer.Argument(metavar="QUERIES", help=".jsonl[.gz] of queries.")],
    pack: PackOption,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Parquet file to write.")],
    instruction: Annotated[
        str | None, typer.Option(help="Name of the pack's table; default: the pack's.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Encode queries by look-up: columns id, dense, sparse_ids, sparse_weights."""
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.eval.collection import read_queries
    from steelyard.indexer.encoding.shards import write_queries

    encoder = QueryEncoder.load(pack)
    found, bad = read_queries(queries)
    encoded = encoder.encode_query([query.text for query in found], instruction=instruction)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_queries(out, [query.id for query in found], encoded.dense, encoded.sparse)
    result = {
        "queries": len(found),
        "empty": int(encoded.empty.sum()),
        "truncated": int(encoded.truncated.sum()),
        "rejected": [asdict(line) for line in bad],
        "out": str(out),
    }
    first = f" (line {bad[0].line}: {bad[0].reason})" if bad else ""
    print_pairs({**result, "rejected": f"{len(bad)}{first}"})
    write_json(result, json)
