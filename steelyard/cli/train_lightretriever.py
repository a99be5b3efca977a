"""``steelyard train lightretriever``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steelyard.cli.comma_separated import integers
from steelyard.cli.options import (
    TASK,
    CausalPrecisionOption,
    DeviceOption,
    FormatOption,
    MappingIdOption,
    MappingTextOption,
    MappingTitleOption,
)
from steelyard.cli.output import JsonOption, RichProgress, print_pairs, write_json
from steelyard.errors import InputError

if TYPE_CHECKING:
    from steelyard.training.data.triples import TrainingExample
    from steelyard.training.trainer import TrainingReport


def lightretriever(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Examples: .jsonl[.gz] of `train data`, a .tsv of triples, or a BEIR folder.",
        ),
    ],
    model: Annotated[
        str, typer.Option(help="Base model: folder, GGUF file, installed package, hub name.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the run.")],
    corpus: Annotated[
        str | None,
        typer.Option(help="Corpus that examples name documents of, by id."),
    ] = None,
    task: Annotated[str, typer.Option(help="What queries ask for, in a sentence.")] = TASK,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 12_000,
    batch: Annotated[int, typer.Option(min=2, help="Queries a step, over all processes.")] = 128,
    negatives: Annotated[int, typer.Option(min=0, help="Hard negatives of each query.")] = 7,
    document_tokens: Annotated[int, typer.Option(min=3, help="Documents are cut to this.")] = 512,
    query_tokens: Annotated[int, typer.Option(min=3, help="Queries are cut to this.")] = 512,
    chunk: Annotated[
        int | None,
        typer.Option(min=1, help="Texts with activations in memory at a time (GradCache)."),
    ] = None,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Compute activations twice, hold few.")
    ] = False,
    learning_rate: Annotated[float, typer.Option(help="At its peak.")] = 2e-5,
    warmup: Annotated[int, typer.Option(min=0, help="Steps until the peak.")] = 100,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.01,
    rank: Annotated[int, typer.Option(min=1, help="Of LoRA.")] = 16,
    alpha: Annotated[int, typer.Option(min=1, help="Of LoRA.")] = 32,
    dropout: Annotated[float, typer.Option(help="Of LoRA.")] = 0.1,
    first_layer: Annotated[
        int, typer.Option(min=0, help="Layers below this one are left as they are.")
    ] = 0,
    flops: Annotated[float, typer.Option(help="Weight of the FLOPS regulariser.")] = 1e-3,
    ramp: Annotated[int, typer.Option(min=0, help="Steps until it has that weight.")] = 4000,
    kl_dense: Annotated[
        float, typer.Option(help="Weight of KL from full to light dense scores.")
    ] = 0.0,
    kl_sparse: Annotated[float, typer.Option(help="The same for light sparse scores.")] = 0.0,
    kl_vectors: Annotated[
        float, typer.Option(help="Weight of KL from full to light query vectors; thousands.")
    ] = 0.0,
    full_queries: Annotated[
        bool, typer.Option(help="Train the full query encoder, too; the KL terms need it.")
    ] = True,
    init_adapter: Annotated[
        str | None,
        typer.Option(help="Begin with this adapter: a folder or hub name, of the same shape."),
    ] = None,
    mrl_dims: Annotated[
        str, typer.Option(help="Lengths of vector to train, e.g. 128,256,576; default: all.")
    ] = "",
    repeat: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND=N", help="Examples of a kind N times an epoch; 0: never."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Of everything that is drawn.")
    ] = 0,
    cased: Annotated[bool, typer.Option("--cased", help="Keep the case of texts.")] = False,
    precision: CausalPrecisionOption = "auto",
    device: DeviceOption = None,
    gguf_file: Annotated[str | None, typer.Option(help="Which GGUF file of the model.")] = None,
    revision: Annotated[str | None, typer.Option(help="Hub revision of the model.")] = None,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 50,
    minutes: Annotated[
        float | None, typer.Option(help="Save and stop after so long; the same command goes on.")
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also log to DIR/tensorboard.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Forget the run that is in the folder.")
    ] = False,
    id: MappingIdOption = None,
    title: MappingTitleOption = None,
    text: MappingTextOption = None,
    format: FormatOption = None,
    json: JsonOption = None,
) -> None:
    """Train a LoRA adapter: LightRetriever's recipe. The same command goes on after a stop."""
    from steelyard.encoders.causal.build import prompt_of
    from steelyard.indexer.reading.mapping import FieldMapping
    from steelyard.indexer.signals import stop_signals
    from steelyard.training.batches import examples_sha256, repeated
    from steelyard.training.losses import LossSettings
    from steelyard.training.settings import (
        AdapterSettings,
        BatchSettings,
        OptimiserSettings,
        TrainingSettings,
    )
    from steelyard.training.trainer import TrainingJob, train_light_retriever

    lengths = integers(mrl_dims, "--mrl-dims", example="128,256,576", least=1) if mrl_dims else []
    settings = TrainingSettings(
        prompt=prompt_of(task),
        adapter=AdapterSettings(rank, alpha, dropout, first_layer),
        batch=BatchSettings(
            batch,
            negatives,
            document_tokens,
            query_tokens,
            chunk=chunk,
            checkpointing=checkpointing,
        ),
        optimiser=OptimiserSettings(steps, learning_rate, warmup, weight_decay=weight_decay),
        loss=LossSettings(
            flops=flops,
            kl_dense=kl_dense,
            kl_sparse=kl_sparse,
            kl_vectors=kl_vectors,
            mrl_dims=tuple(lengths),
        ),
        full_queries=full_queries,
        ramp=ramp,
        precision=precision,
        lowercase=not cased,
        seed=seed,
    )
    job = TrainingJob(
        model=model,
        out=out,
        settings=settings,
        gguf_file=gguf_file,
        revision=revision,
        init_adapter=init_adapter,
        device=device,
        save_every=save_every,
        minutes=minutes,
        tensorboard=tensorboard,
        source=data.name,
        overwrite=overwrite,
    )
    progress = RichProgress()
    mapping = FieldMapping.parse(id=id, title=title, text=text)
    with progress.stage("read the examples"):
        examples, bad = _examples(data, corpus, mapping, format)
        examples = repeated(examples, _times(repeat or []))
    if bad:
        progress.say(f"{len(bad):,} bad lines, first: {bad[0]}")
    with stop_signals() as signals:
        report = train_light_retriever(
            job, examples, examples_sha256(examples), progress, wanted=signals.wanted
        )
    print_pairs(_shown(report))
    write_json(report.to_json(), json)


def _examples(
    data: Path, corpus: str | None, mapping: Any, format: str | None
) -> tuple[list[TrainingExample], list[str]]:
    """All examples, and what is wrong with the others."""
    from steelyard.indexer.reading.documents import good_documents
    from steelyard.indexer.reading.readers import open_corpus
    from steelyard.training.data.judged import open_examples
    from steelyard.training.data.triples import load_examples, passages_by_id

    documents = None
    if corpus is not None:
        documents = passages_by_id(good_documents(open_corpus(corpus, mapping, format)))
    good, bad = load_examples(open_examples(data, documents), data)
    return good, [f"{one.file}, line {one.line}: {one.reason}" for one in bad]


def _times(written: list[str]) -> dict[str, int]:
    times: dict[str, int] = {}
    for one in written:
        kind, _, number = one.partition("=")
        if not kind or not number.isdecimal():
            raise InputError(f"cannot read --repeat {one!r}", "write KIND=N, e.g. judged=3")
        times[kind] = int(number)
    return times


def _shown(report: TrainingReport) -> dict[str, Any]:
    total = report.settings.optimiser.steps
    shown: dict[str, Any] = {
        "steps": f"{report.steps:,} of {total:,}"
        + ("" if report.done else ": go on with the same"),
        "examples": ", ".join(f"{kind} {n:,}" for kind, n in report.examples.items()),
        "parameters": f"{report.parameters:,}",
    }
    for name, line in (("first step", report.first), ("last step", report.last)):
        if line:
            recall = ", ".join(f"{arm} {share:.2f}" for arm, share in line["recall"].items())
            shown[name] = f"loss {line['loss']:.3f}; recall in the batch: {recall}"
    if report.seconds:
        shown["speed"] = f"{report.timed_steps / report.seconds:.3f} steps/s"
    shown["adapter"] = str(report.adapter)
    return shown
