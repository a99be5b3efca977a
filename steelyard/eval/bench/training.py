"""Training steps and their memory: chunks, shared blocks, checkpointing against the plain way.

Each contender is a process of its own with the same model, adapter, batch and seed. All are open
at once and take turns, a step each, so that a busy machine slows all of them alike. They must come
to the same losses: dropout is off, because sharing a token draws for it once.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from steelyard.errors import InputError, SteelyardError
from steelyard.progress import Progress

PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class TrainingSetting:
    """What all contenders share.

    Attributes:
        model: base model; see ``locate_causal_model``.
        prompt: before every query.
        queries, passages: texts of the batch.
        document_tokens, query_tokens: see ``BatchSettings``.
        chunk: of those that work in chunks.
        precision, device: see ``open_causal_model``.
        threads: of PyTorch; None is its own choice.
    """

    model: str
    prompt: str
    queries: list[str]
    passages: list[str]
    document_tokens: int
    query_tokens: int
    chunk: int
    precision: str = "auto"
    device: str | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """How a contender goes through a batch.

    Attributes:
        name: of the contender.
        chunks: by chunks, with GradCache; False holds the whole batch's activations.
        share_blocks: reads each different query token once; False gives every query a sequence
            with a prompt of its own.
        checkpointing: holds activations of layers' borders only, and computes the rest again.
    """

    name: str
    chunks: bool
    share_blocks: bool
    checkpointing: bool = False


WAYS = (
    Way(PLAIN, chunks=False, share_blocks=False),
    Way("GradCache", chunks=True, share_blocks=False),
    Way("shared blocks", chunks=False, share_blocks=True),
    Way("both", chunks=True, share_blocks=True),
    Way("checkpointing", chunks=False, share_blocks=False, checkpointing=True),
)


@dataclass(frozen=True, slots=True)
class WayResult:
    """One contender's figures.

    Attributes:
        name: see ``Way``.
        seconds: of a step, median over the rounds.
        speed_up: over the plain way.
        base_bytes: resident before the first step; on a GPU, allocated there. None where this
            system cannot tell.
        peak_bytes: at most, while training.
        extra_share: peak less base, as a share of the plain way's.
        losses: of each step, the warm-up first.
        gradient_norms: likewise.
    """

    name: str
    seconds: float
    speed_up: float
    base_bytes: int | None
    peak_bytes: int | None
    extra_share: float | None
    losses: list[float]
    gradient_norms: list[float]


@dataclass(frozen=True, slots=True)
class TrainingBenchmark:
    """All contenders on one batch.

    Attributes:
        queries, passages: of the batch.
        tokens: of its passages and full queries.
        chunk: texts with activations at a time.
        precision: dtype of the frozen weights.
        rounds: steps timed.
        largest_difference: between a loss and the plain way's of the same step, as a share of it.
        ways: the plain way first.
    """

    queries: int
    passages: int
    tokens: int
    chunk: int
    precision: str
    rounds: int
    largest_difference: float
    ways: list[WayResult]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def bench_training(
    setting: TrainingSetting, progress: Progress, *, rounds: int = 3
) -> TrainingBenchmark:
    """Time all contenders, one warm-up step each not counted.

    Args:
        setting: see there.
        progress: shows the steps.
        rounds: steps of each that count.

    Raises:
        InputError: no round.
        SteelyardError: a contender failed; its last words are told.
    """
    if rounds < 1:
        raise InputError(f"{rounds} rounds", "1 or more")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with progress.stage("open the contenders", len(WAYS)) as advance:
            opened = []
            for number, way in enumerate(WAYS):
                job = folder / f"{number}.json"
                job.write_text(json.dumps({**asdict(setting), "way": asdict(way)}))
                opened.append(stack.enter_context(_Contender(way, job)))
                advance(1)
        steps: list[list[dict[str, Any]]] = [[] for _ in opened]
        with progress.stage("train", (rounds + 1) * len(opened)) as advance:
            for _ in range(rounds + 1):
                for found, contender in zip(steps, opened, strict=True):
                    found.append(contender.ask("step"))
                    advance(1)
        memory = [contender.ask("memory") for contender in opened]
    about = opened[0].about
    return TrainingBenchmark(
        queries=len(setting.queries),
        passages=len(setting.passages),
        tokens=about["tokens"],
        chunk=setting.chunk,
        precision=about["precision"],
        rounds=rounds,
        largest_difference=_largest_difference(steps),
        ways=_results(steps, memory),
    )


class _Contender:
    """A process that does a step when it is told to.

    Attributes:
        about: what it said of itself: ``tokens``, ``precision``.
    """

    def __init__(self, way: Way, job: Path) -> None:
        self._way = way
        self._words = job.with_suffix(".txt")
        with self._words.open("w", encoding="utf-8") as words:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "steelyard.eval.bench.training_process", str(job)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=words,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        self.about: dict[str, Any] = {}

    def __enter__(self) -> _Contender:
        try:
            self.about = self._answer()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, what: str) -> dict[str, Any]:
        """``step`` or ``memory``."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        try:
            self._process.stdin.write(f"{what}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # its last words say why
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            words = self._words.read_text(encoding="utf-8").strip().splitlines() or ["nothing"]
            raise SteelyardError(
                f"the process that trains {self._way.name!r} ended with {code}; it said: "
                f"{words[-1]}",
                "-9 is a lack of memory: make the batch smaller",
            )
        found: dict[str, Any] = json.loads(line)
        return found


def _results(
    steps: Sequence[Sequence[dict[str, Any]]], memory: Sequence[dict[str, Any]]
) -> list[WayResult]:
    seconds = [statistics.median(step["seconds"] for step in found[1:]) for found in steps]
    extra = [_extra(one) for one in memory]
    return [
        WayResult(
            name=way.name,
            seconds=took,
            speed_up=seconds[0] / took,
            base_bytes=held["base_bytes"],
            peak_bytes=held["peak_bytes"],
            extra_share=more / extra[0] if more is not None and extra[0] else None,
            losses=[step["loss"] for step in found],
            gradient_norms=[step["gradient_norm"] for step in found],
        )
        for way, found, took, held, more in zip(WAYS, steps, seconds, memory, extra, strict=True)
    ]


def _extra(memory: dict[str, Any]) -> int | None:
    base, peak = memory["base_bytes"], memory["peak_bytes"]
    return None if base is None or peak is None else peak - base


def _largest_difference(steps: Sequence[Sequence[dict[str, Any]]]) -> float:
    plain: list[float] = [step["loss"] for step in steps[0]]
    apart: list[float] = [
        abs(step["loss"] - loss) / abs(loss)
        for found in steps
        for step, loss in zip(found, plain, strict=True)
    ]
    return max(apart)
