"""``python -m steelyard.eval.bench.training_process JOB``: a contender of ``bench_training``.

A line ``step`` on its standard input makes it do a training step, ``memory`` tell what it holds;
each answer is a line of JSON.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from steelyard.encoders.causal.tower import CausalEncoder
from steelyard.eval.bench.resident_memory import peak_resident_bytes, reset_peak
from steelyard.eval.bench.training import TrainingSetting, Way
from steelyard.training.batches import Batch
from steelyard.training.lora import add_adapter
from steelyard.training.losses import LossSettings
from steelyard.training.optimisation import Optimisation
from steelyard.training.settings import (
    AdapterSettings,
    BatchSettings,
    OptimiserSettings,
    TrainingSettings,
)
from steelyard.training.tokenised import tokenise
from steelyard.training.trainer import checkpoint_activations, towers_of


class Contender:
    """A model, its adapter and one batch.

    Args:
        setting: shared by all.
        way: its own.
    """

    def __init__(self, setting: TrainingSetting, way: Way) -> None:
        if setting.threads is not None:
            torch.set_num_threads(setting.threads)
        lengths = BatchSettings(
            queries=len(setting.queries),
            document_tokens=setting.document_tokens,
            query_tokens=setting.query_tokens,
            chunk=setting.chunk if way.chunks else None,
            share_blocks=way.share_blocks,
            checkpointing=way.checkpointing,
        )
        settings = TrainingSettings(
            prompt=setting.prompt,
            adapter=AdapterSettings(dropout=0.0),
            batch=lengths,
            # The same rate at every step, and the regulariser at its full strength.
            optimiser=OptimiserSettings(learning_rate=1e-4, warmup=0, floor=1.0),
            loss=LossSettings(kl_dense=1.0, kl_sparse=1.0),
            ramp=0,
        )
        encoder = CausalEncoder(setting.model, precision=setting.precision, device=setting.device)
        add_adapter(encoder.model.backbone, settings.adapter)
        if lengths.checkpointing:
            checkpoint_activations(encoder.model.backbone)
        self._towers = towers_of(encoder, settings)
        self._optimisation = Optimisation(self._towers, encoder.tokens, settings)
        self._batch, self._steps = Batch(setting.queries, setting.passages), 0
        ids = tokenise(self._batch, encoder.tokens, setting.prompt, lengths)
        self.about = {"tokens": ids.tokens, "precision": encoder.precision}
        self._base = self._reset_peak()

    def step(self) -> dict[str, Any]:
        """The trainer's: tokens, loss, gradients, and AdamW."""
        started = time.perf_counter()
        found = self._optimisation.step(self._steps, self._batch)
        seconds = time.perf_counter() - started
        self._steps += 1
        return {"seconds": seconds, "loss": found.loss, "gradient_norm": found.gradient_norm}

    def memory(self) -> dict[str, Any]:
        """Held before the first step, and at the peak since."""
        if self._towers.device.type == "cuda":
            peak: int | None = torch.cuda.max_memory_allocated(self._towers.device)
        else:
            peak = None if self._base is None else peak_resident_bytes()
        return {"base_bytes": self._base, "peak_bytes": peak}

    def _reset_peak(self) -> int | None:
        """What is held now; the peak counts from here."""
        if self._towers.device.type != "cuda":
            return reset_peak()
        gc.collect()
        torch.cuda.reset_peak_memory_stats(self._towers.device)
        return int(torch.cuda.memory_allocated(self._towers.device))


def main(job: Path) -> None:
    """Open what the job names, then answer until the input ends."""
    value = json.loads(job.read_text(encoding="utf-8"))
    way = Way(**value.pop("way"))
    contender = Contender(TrainingSetting(**value), way)
    print(json.dumps(contender.about), flush=True)
    answers = {"step": contender.step, "memory": contender.memory}
    for line in sys.stdin:
        print(json.dumps(answers[line.strip()]()), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
