"""``steelyard plan``: what a corpus will need, before anything runs."""

from __future__ import annotations

from typing import Annotated

import typer

from steelyard.cli.output import JsonOption, print_pairs, write_json


def plan(
    documents: Annotated[int, typer.Option(min=1, help="Documents, or passages of split ones.")],
    tokens_per_second: Annotated[
        float, typer.Option(help="Of one encoder: see 'steelyard bench documents'.")
    ],
    load_rate: Annotated[
        float, typer.Option(help="Documents/s of the engines: see 'steelyard bench bulk'.")
    ],
    tokens: Annotated[float, typer.Option(help="Tokens a document.")] = 200,
    dims: Annotated[int, typer.Option(min=1, help="Of a dense vector.")] = 384,
    terms: Annotated[float, typer.Option(help="Of a sparse vector, mean.")] = 128,
    text_bytes: Annotated[float, typer.Option(help="Of title and text, mean.")] = 1000,
    encoders: Annotated[int, typer.Option(min=1, help="GPUs, or processes, side by side.")] = 1,
    replicas: Annotated[int, typer.Option(min=0, help="Copies beside the first.")] = 1,
    keep: Annotated[int, typer.Option(min=0, help="Older generations kept.")] = 1,
    shard_documents: Annotated[int, typer.Option(min=1, help="Documents in a shard.")] = 2048,
    json: JsonOption = None,
) -> None:
    """Shards, hours, network and engine sizes of a corpus, from measured rates."""
    from dataclasses import asdict

    from steelyard.indexer import sizing

    work = sizing.Workload(documents, tokens, dims, terms, text_bytes, shard_documents)
    took = sizing.duration_of(work, sizing.Rates(tokens_per_second, encoders, load_rate))
    shards, both = sizing.shards_of(work), sizing.opensearch_index(work)
    lead, follower = sizing.opensearch_index(work, dense=False), sizing.milvus_index(work)
    # While the next generation is loaded, without replicas, the live and the kept ones are there.
    copies = 1 + replicas
    peak = both.total * (copies * (1 + keep) + 1)
    wire = sizing.wire_bytes(work)
    print_pairs(
        {
            "shards": f"{shards.count:,} files, {_size(shards.bytes)}",
            "encoding": f"{took.encoder_hours:,.0f} encoder hours, {_hours(took.encode)} "
            f"on {encoders}",
            "loading": f"{_hours(took.load)}; both overlap: {_hours(took.job)}",
            "network to OpenSearch": f"{_size(wire)}, {_size(wire / took.job)}/s",
            "B: OpenSearch, one copy": f"{_size(both.total)}: vectors {_size(both.vectors)}, "
            f"links up to {_size(both.graph)}, terms {_size(both.sparse)}, "
            f"texts {_size(both.texts)}",
            "B: disk at the peak": f"{_size(peak)} with {replicas} replicas, {keep} kept",
            "B: page cache, one copy": f"{_size(both.vectors + both.graph)} for the dense arm",
            "A: OpenSearch, one copy": _size(lead.total),
            "A: Milvus' memory": _size(follower.total),
        }
    )
    result = {
        "workload": asdict(work),
        "shards": asdict(shards),
        "seconds": asdict(took),
        "wire_bytes": wire,
        "b": {"opensearch": asdict(both), "disk_peak": peak},
        "a": {"opensearch": asdict(lead), "milvus_memory": asdict(follower)},
    }
    write_json(result, json)


def _size(count: float) -> str:
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:,.1f} {unit}"
    return f"{count / 1e3:,.1f} kB"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:,.0f} min"
