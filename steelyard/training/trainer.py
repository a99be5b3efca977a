"""LightRetriever's training run: examples in, a LoRA adapter out.

A run is a folder: ``adapter/`` at the end, ``log.jsonl`` and ``checkpoints/`` on the way, and
``training.json`` that says how it was made. The same command goes on where a run stopped.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from steelyard.encoders.causal.source import ADAPTER_WEIGHTS, locate_adapter
from steelyard.encoders.causal.tower import CausalEncoder
from steelyard.encoders.folder_lock import locked_folder
from steelyard.encoders.pack.files import sha256_of
from steelyard.encoders.whole_file import whole_file
from steelyard.errors import InputError, needs_extra
from steelyard.progress import Progress
from steelyard.training.batches import Batches
from steelyard.training.checkpoints import FOLDER as CHECKPOINTS
from steelyard.training.checkpoints import load_checkpoint, save_checkpoint
from steelyard.training.data.triples import TrainingExample
from steelyard.training.gather import anywhere, gather, rank, world_size
from steelyard.training.log import LOG, TENSORBOARD, TrainingLog, read_log
from steelyard.training.lora import add_adapter, load_adapter, write_adapter
from steelyard.training.optimisation import Optimisation
from steelyard.training.settings import TrainingSettings
from steelyard.training.towers import Towers

ADAPTER = "adapter"
REPORT = "training.json"
SAVE_EVERY = 50


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """What to train, and where to.

    Attributes:
        model: base model; see ``locate_causal_model``.
        out: folder of the run.
        settings: what decides the result.
        gguf_file, revision: of the model.
        init_adapter: a trained adapter to begin with, folder or hub name.
        device: a torch device; None takes each process's own, see ``device_of_process``.
        save_every: steps between two checkpoints.
        minutes: stop after a checkpoint when so much time is over; None: at the end only.
        tensorboard: also log for TensorBoard.
        adapter_precision: dtype of the written adapter.
        source: name of the data, for the report.
        overwrite: forget the run that is in the folder, once this one could start.
    """

    model: str
    out: Path
    settings: TrainingSettings
    gguf_file: str | None = None
    revision: str | None = None
    init_adapter: str | None = None
    device: str | None = None
    save_every: int = SAVE_EVERY
    minutes: float | None = None
    tensorboard: bool = False
    adapter_precision: str = "float16"
    source: str = ""
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What a run came to.

    Attributes:
        steps: done so far, of ``settings.optimiser.steps``.
        done: whether that is all of them, and the adapter is final.
        adapter: folder of the adapter as it is now.
        parameters: numbers that learnt.
        examples: by kind.
        first, last: log lines of the first step and of the last.
        settings: see there.
        model, weights: the base model and the hash of its weights.
        init_adapter: hash of the weights that the run began with, if it was given an adapter.
        data: name and hash of the examples.
        processes: that trained together.
        seconds: of the logged steps, checkpoints and loading aside.
        timed_steps: how many those are.
    """

    steps: int
    done: bool
    adapter: Path
    parameters: int
    examples: dict[str, int]
    first: dict[str, Any]
    last: dict[str, Any]
    settings: TrainingSettings
    model: str
    weights: str
    init_adapter: str | None
    data: dict[str, str]
    processes: int
    seconds: float
    timed_steps: int

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {**asdict(self), "adapter": str(self.adapter)}


def train_light_retriever(
    job: TrainingJob,
    examples: Sequence[TrainingExample],
    data_sha256: str,
    progress: Progress,
    *,
    wanted: Callable[[], BaseException | None] = lambda: None,
) -> TrainingReport:
    """Train, or go on training.

    Args:
        job: see there.
        examples: at least as many positives as a batch has queries.
        data_sha256: of the examples: a run goes on with the same only.
        progress: told of steps.
        wanted: asked after every step; an error that it returns is raised once all is saved.

    Raises:
        InputError: a setting, the model or the data cannot be used, or the folder holds another
            run.
        SteelyardError: the loss is no number, or a batch does not fit in memory.
    """
    own = device_of_process()
    device = job.device or own
    with locked_folder(job.out) if rank() == 0 else nullcontext():
        with progress.stage("open the model"):
            run = _Run(job, examples, data_sha256, device)
        if 0 < run.step < job.settings.optimiser.steps:
            progress.say(f"going on after step {run.step:,}")
        return run.train(progress, wanted)


def device_of_process() -> str | None:
    """Where this process trains; joins the others if ``accelerate launch`` started several.

    Returns:
        A torch device; None where there is one process, and the usual choice is right.
    """
    with needs_extra("train"):
        from accelerate import PartialState

    state = PartialState()
    return str(state.device) if state.num_processes > 1 else None


def forget_run(folder: Path) -> None:
    """Remove what a run wrote, and nothing else that may lie there."""
    for name in (ADAPTER, CHECKPOINTS, TENSORBOARD):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (REPORT, LOG):
        (folder / name).unlink(missing_ok=True)


class _Run:
    """Model, optimiser and data of a run in this process.

    Attributes:
        step: steps done.
    """

    def __init__(
        self,
        job: TrainingJob,
        examples: Sequence[TrainingExample],
        data_sha256: str,
        device: str | None,
    ) -> None:
        settings = job.settings
        self._job, self._settings = job, settings
        if settings.batch.queries % world_size():
            raise InputError(
                f"{settings.batch.queries} queries a batch for {world_size()} processes",
                "make the batch a multiple of the processes",
            )
        self._batches = Batches(
            examples, settings.batch.queries, settings.batch.negatives, settings.seed
        )
        self._kinds = dict(Counter(example.kind or "other" for example in examples))
        first = None if job.init_adapter is None else _first_adapter(job.init_adapter, job.out)
        encoder = CausalEncoder(
            job.model,
            gguf_file=job.gguf_file,
            revision=job.revision,
            max_length=settings.batch.document_tokens,
            lowercase=settings.lowercase,
            precision=settings.precision,
            device=device,
        )
        self._weights, backbone = encoder.spec.weights, encoder.model.backbone
        self._adapted = add_adapter(backbone, settings.adapter, settings.seed)
        self._init_adapter: str | None = None
        if first is not None:
            load_adapter(self._adapted, first)
            self._init_adapter = sha256_of(first / ADAPTER_WEIGHTS)
        if settings.batch.checkpointing:
            checkpoint_activations(backbone)
        self._towers = towers_of(encoder, settings)
        self._optimisation = Optimisation(self._towers, encoder.tokens, settings)
        self._data = {"name": job.source, "sha256": data_sha256}
        begun = [] if self._init_adapter is None else [self._init_adapter]
        self._fingerprint = settings.fingerprint(self._weights, data_sha256, *begun)
        if job.overwrite:
            if rank() == 0:
                forget_run(job.out)
            anywhere(False, self._towers.device)  # the others look after that
        self.step = load_checkpoint(
            job.out, self._fingerprint, self._optimisation.parameters, self._optimisation.adamw
        )
        steps = gather(torch.tensor([self.step], device=self._towers.device)).tolist()
        if len(set(steps)) > 1:
            raise InputError(
                f"the processes stand at steps {', '.join(map(str, steps))}",
                "give an --out that all machines share",
            )

    def train(
        self, progress: Progress, wanted: Callable[[], BaseException | None]
    ) -> TrainingReport:
        """All steps that are left, or those that fit into the minutes."""
        total, started = self._settings.optimiser.steps, time.monotonic()
        minutes = self._job.minutes
        with self._log() as log, progress.stage("train", total) as advance:
            advance(self.step)
            while self.step < total:
                values = self._one_step()
                if log is not None:
                    log.write(self.step, values)
                self.step += 1
                advance(1)
                late = minutes is not None and time.monotonic() - started > 60 * minutes
                error = wanted()
                stop = anywhere(late or error is not None, self._towers.device)
                if stop or self.step == total or self.step % self._job.save_every == 0:
                    self._save()
                    progress.say(_told(self.step, total, values))
                if error is not None:
                    self._report()
                    raise error
                if stop:
                    break
        return self._report()

    def _one_step(self) -> dict[str, Any]:
        started = time.perf_counter()
        report = self._optimisation.step(self.step, self._batches[self.step])
        return {**asdict(report), "seconds": time.perf_counter() - started}

    def _log(self) -> AbstractContextManager[TrainingLog | None]:
        if rank() != 0:
            return nullcontext()
        log = TrainingLog(self._job.out, self.step, tensorboard=self._job.tensorboard)
        return closing(log)

    def _save(self) -> None:
        if rank() != 0:
            return
        out, learnt = self._job.out, self._optimisation
        # The adapter first: a run whose last checkpoint is there has nothing more to write.
        write_adapter(self._adapted, out / ADAPTER, self._job.model, self._job.adapter_precision)
        save_checkpoint(out, self.step, self._fingerprint, learnt.parameters, learnt.adamw)

    def _report(self) -> TrainingReport:
        out, lines = self._job.out, read_log(self._job.out)
        report = TrainingReport(
            steps=self.step,
            done=self.step >= self._settings.optimiser.steps,
            adapter=out / ADAPTER,
            parameters=sum(p.numel() for p in self._optimisation.parameters.values()),
            examples=self._kinds,
            first=lines[0] if lines else {},
            last=lines[-1] if lines else {},
            settings=self._settings,
            model=self._job.model,
            weights=self._weights,
            init_adapter=self._init_adapter,
            data=self._data,
            processes=world_size(),
            seconds=sum(line["seconds"] for line in lines),
            timed_steps=len(lines),
        )
        if rank() == 0:
            with whole_file(out / REPORT) as stream:
                stream.write(json.dumps(report.to_json(), indent=2).encode() + b"\n")
        return report


def _first_adapter(adapter: str, out: Path) -> Path:
    """Folder of the adapter to begin with; looked for before the model is opened."""
    folder = locate_adapter(adapter)
    if folder.resolve().is_relative_to(out.resolve()):
        raise InputError(
            f"the adapter to begin with, {folder}, lies in the run's own folder",
            "give --out another folder: this one's adapter is written over",
        )
    return folder


def towers_of(encoder: CausalEncoder, settings: TrainingSettings) -> Towers:
    """What a run trains, around an opened model."""
    return Towers(
        backbone=encoder.model.backbone,
        head=encoder.model.head,
        prompt_ids=tuple(encoder.tokens.prompt_ids(settings.prompt)),
        eos=encoder.tokens.eos,
        pad=encoder.tokens.pad,
        logit_scale=encoder.model.logit_scale,
        logit_cap=encoder.model.logit_cap,
        share_blocks=settings.batch.share_blocks,
    )


def checkpoint_activations(backbone: Any) -> None:
    """Hold only what goes into each layer, and compute the layer again on the way back."""
    name = "activation_checkpointing_enable"
    enable = getattr(backbone, name, None) or backbone.gradient_checkpointing_enable
    enable()


def _told(step: int, total: int, values: dict[str, Any]) -> str:
    recall = ", ".join(f"{name} {value:.2f}" for name, value in values["recall"].items())
    return f"step {step:,} of {total:,}: loss {values['loss']:.3f}; recall in the batch: {recall}"
