"""``steelyard bench``: speed, as ratios measured in one run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from steelyard.cli.comma_separated import integers
from steelyard.cli.example_corpus import example_corpus
from steelyard.cli.options import (
    TASK,
    AdapterMovedOption,
    CausalPrecisionOption,
    Corpus,
    DeviceOption,
    LeanOption,
    ModelMovedOption,
    PackOption,
    PoolsOption,
    PrecisionOption,
    ShardsOption,
)
from steelyard.cli.output import JsonOption, RichProgress, print_rows, write_json
from steelyard.encoders.distillation.settings import DistillationSettings
from steelyard.eval.systems import DEFAULT_SYSTEMS

app = typer.Typer(help="Speed, as ratios measured in one run.", no_args_is_help=True)


DEFAULTS = DistillationSettings()


@app.callback()
def bench() -> None:
    """Speed, as ratios measured in one run."""


@app.command()
def seeds(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="Judged BEIR folder.")],
    model: Annotated[str, typer.Option(help="Frozen model, as in 'pack distill'.")],
    seeds: Annotated[str, typer.Option(help="Comma-separated.")] = "0,1,2,3,4",
    systems: Annotated[str, typer.Option(help="As in 'eval'.")] = DEFAULT_SYSTEMS,
    split: Annotated[str, typer.Option(help="Report test; choose settings on train.")] = "test",
    pseudo_queries: Annotated[
        int, typer.Option(min=30, help="Of all kinds together.")
    ] = DEFAULTS.pseudo_queries,
    pools: PoolsOption = DEFAULTS.pools,
    lean: LeanOption = DEFAULTS.lean,
    epochs: Annotated[int, typer.Option(min=1)] = DEFAULTS.epochs,
    shards: ShardsOption = None,
    precision: PrecisionOption = "auto",
    json: JsonOption = None,
) -> None:
    """Distill and measure with several seeds, pseudo-queries drawn anew: mean and spread."""
    from steelyard.eval.collection import read_judged
    from steelyard.eval.seeds import run_seeds, spread
    from steelyard.eval.systems import parse_systems
    from steelyard.indexer.distillation_job import DistillationJob
    from steelyard.indexer.reading.readers import open_corpus

    numbers = integers(seeds, "--seeds", example="0,1,2", least=0)
    settings = DistillationSettings(
        pseudo_queries=pseudo_queries, pools=pools, lean=lean, epochs=epochs
    )
    job = DistillationJob(model=model, settings=settings, precision=precision)
    judged = read_judged(corpus, split)
    runs = run_seeds(
        open_corpus(corpus), judged, job, numbers, parse_systems(systems), shards, RichProgress()
    )
    summary = spread(runs)
    rows = [
        [
            entry["system"],
            *(f"{entry['ndcg@10'][key]:.4f}" for key in ("mean", "deviation", "least", "most")),
            f"{entry['recall@100']['mean']:.4f}",
        ]
        for entry in summary
    ]
    columns = ["system", "nDCG@10 mean", "deviation", "least", "most", "R@100 mean"]
    print_rows(f"{judged.name}, seeds {seeds}", columns, rows)
    write_json(
        {"collection": judged.name, "summary": summary, "runs": [asdict(run) for run in runs]},
        json,
    )


@app.command()
def query(
    pack: PackOption,
    queries: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Real queries; default: examples/scifact."),
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="BEIR folder whose passages are encoded first, so that words are known; "
            "default: examples/scifact.",
        ),
    ] = None,
    warm: Annotated[int, typer.Option(min=0, help="How many passages of ten words.")] = 100_000,
    full: Annotated[bool, typer.Option(help="Also time the full model.")] = True,
    model: ModelMovedOption = None,
    adapter: AdapterMovedOption = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = None,
    json: JsonOption = None,
) -> None:
    """Query encoding against its own tokenizer and against the full model."""
    from steelyard.encoders.documents.from_pack import open_dense_encoder
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.eval.bench.passages import windows
    from steelyard.eval.bench.query import bench_query
    from steelyard.eval.collection import read_queries
    from steelyard.indexer.reading.documents import good_documents
    from steelyard.indexer.reading.readers import open_corpus

    encoder = QueryEncoder.load(pack)
    found, _ = read_queries(queries or example_corpus() / "queries.jsonl")
    documents = good_documents(open_corpus(corpus or example_corpus())) if warm else iter(())
    texts = [document.content for document in documents]
    teacher = (
        open_dense_encoder(
            encoder.metadata, model=model, adapter=adapter, precision=precision, device=device
        )
        if full
        else None
    )
    passages = windows(texts, warm, 10) if warm else []
    result = bench_query(encoder, [q.text for q in found], passages, teacher)
    bare = result.tokenizer_us
    rows = [
        [name, f"{us:.2f}", f"{bare / us:.2f}"]
        for name, us in (
            (f"tokenizer alone, {result.threads} threads", bare),
            ("tokenizer alone, 1 thread", result.tokenizer_one_thread_us),
            ("token ids, the fast way", result.tokens_us),
            ("look-up, dense", result.dense_us),
            ("look-up, both arms", result.both_arms_us),
            ("look-up, both arms, every word known", result.known_us),
            ("look-up, both arms, no word known", result.cold_us),
        )
    ]
    if result.full_qps:
        rows.append(
            [
                "full model, batch 256",
                f"{1e6 / result.full_qps:,.0f}",
                f"{bare * result.full_qps / 1e6:.4f}",
            ]
        )
    title = f"{result.queries:,} queries in batches of 1,024"
    print_rows(title, ["encoder", "us a query", "times as fast as the tokenizer"], rows)
    if result.speed_up:
        typer.echo(f"look-up over full model, batch 256: {result.speed_up:,.0f} times")
    if result.warm_texts:
        typer.echo(
            f"words known from {result.warm_texts:,} other texts: {result.hit_rate:.1%} of the "
            f"pieces; {result.fast_share:.1%} of the queries went the fast way; all ids equal "
            "the tokenizer's"
        )
    else:
        typer.echo("no fast way: everything went through the tokenizer, or nothing was warmed")
    typer.echo(
        f"one query: tokenizer {result.single_tokenizer_us:.1f} us, token ids "
        f"{result.single_tokens_us:.1f} us ({result.single_tokens_ratio:.2f} times), both arms "
        f"{result.single_query_us:.1f} us ({result.single_ratio:.2f} times)"
    )
    typer.echo(f"importing the query encoder: {result.import_seconds:.2f} s")
    write_json(result.to_dict(), json)


@app.command()
def table(
    model: Annotated[str, typer.Option(help="Causal language model, as in 'pack build'.")],
    adapter: Annotated[str | None, typer.Option(metavar="DIR", help="LoRA adapter.")] = None,
    task: Annotated[str, typer.Option(help="Of the instruction.")] = TASK,
    rows: Annotated[int, typer.Option(min=1, help="Tokens to time.")] = 512,
    precision: CausalPrecisionOption = "auto",
    device: DeviceOption = None,
    json: JsonOption = None,
) -> None:
    """Table building against reading the prompt anew for every token."""
    from steelyard.encoders.causal.build import prompt_of
    from steelyard.encoders.causal.tower import CausalEncoder
    from steelyard.eval.bench.causal import bench_table

    tower = CausalEncoder(model, adapter=adapter, precision=precision, device=device)
    result = bench_table(tower, prompt_of(task), rows)
    title = f"{result.rows:,} rows, prompt of {result.prompt_tokens} tokens, {result.precision}"
    print_rows(
        title,
        ["builder", "rows/s"],
        [
            ["prompt read once", f"{result.rows_per_second:,.1f}"],
            ["prompt read for every token", f"{result.naive_rows_per_second:,.1f}"],
        ],
    )
    typer.echo(
        f"{result.speed_up:.1f} times; rows differ by {result.largest_difference:.1g} at most"
    )
    write_json(result.to_dict(), json)


@app.command()
def documents(
    corpus: Corpus,
    model: Annotated[str, typer.Option(help="Causal language model, as in 'pack build'.")],
    adapter: Annotated[str | None, typer.Option(metavar="DIR", help="LoRA adapter.")] = None,
    max_length: Annotated[int, typer.Option(min=2, help="Tokens of a document.")] = 512,
    count: Annotated[int, typer.Option(min=1, help="Documents to time.")] = 64,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Padded tokens in a batch.")] = 4096,
    precision: CausalPrecisionOption = "auto",
    device: DeviceOption = None,
    json: JsonOption = None,
) -> None:
    """Document encoding against its bare forward passes, LM head included."""
    from itertools import islice

    from steelyard.encoders.causal.tower import CausalEncoder
    from steelyard.eval.bench.causal import bench_documents
    from steelyard.indexer.reading.documents import good_documents
    from steelyard.indexer.reading.readers import open_corpus

    texts = [one.content for one in islice(good_documents(open_corpus(corpus)), count)]
    tower = CausalEncoder(
        model, adapter=adapter, max_length=max_length, precision=precision, device=device
    )
    result = bench_documents(tower, texts, batch_tokens=batch_tokens)
    print_rows(
        f"{result.documents:,} documents, {result.tokens:,} tokens, {result.precision}",
        ["encoder", "tokens/s"],
        [
            ["document tower", f"{result.tokens_per_second:,.0f}"],
            ["bare forward passes and LM head", f"{result.bare_tokens_per_second:,.0f}"],
        ],
    )
    typer.echo(f"{result.share:.1%} of the bare passes")
    bound = f"{result.head_bound_bytes / 1e6:,.1f} MB allowed"
    if result.head_peak_bytes is None:
        typer.echo(f"peak memory of the sparse head: unknown on this system, {bound}")
    else:
        typer.echo(
            f"peak memory of the sparse head: {result.head_peak_bytes / 1e6:,.1f} MB, {bound}"
        )
    write_json(result.to_dict(), json)
