"""A training run in memory: without a folder, for ablations that take minutes.

The steps are those of ``trainer``: batches, loss, schedules and AdamW by the same settings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from steelyard.encoders.causal.tokens import CausalTokenizer
from steelyard.errors import SteelyardError
from steelyard.training.batches import Batches
from steelyard.training.lora import trained_parameters
from steelyard.training.schedules import learning_rate_factor, trainer_strength
from steelyard.training.settings import TrainingSettings
from steelyard.training.step import backward
from steelyard.training.tokenised import tokenise
from steelyard.training.towers import Towers


@dataclass(frozen=True, slots=True)
class ShortRun:
    """What a run came to.

    Attributes:
        parameters: numbers that learnt.
        losses: of each step, before it.
        terms: of the last step's loss, by name.
        gradient_norms: of each step, before they are scaled down.
    """

    parameters: int
    losses: list[float]
    terms: dict[str, float]
    gradient_norms: list[float]


def train_in_memory(
    towers: Towers,
    tokens: CausalTokenizer,
    batches: Batches,
    settings: TrainingSettings,
    advance: Callable[[int], None] = lambda _: None,
) -> ShortRun:
    """Train what of the backbone takes gradients, in place; one process.

    Args:
        towers: with their adapter; the head does not learn.
        tokens: their tokenizer.
        batches: of the settings' queries and negatives.
        settings: all of them but those of the adapter, which is there.
        advance: told of every step.

    Raises:
        SteelyardError: the loss is no number.
    """
    towers.head.requires_grad_(requires_grad=False)
    towers.backbone.train()
    parameters = list(trained_parameters(towers.backbone).values())
    chosen = settings.optimiser
    optimiser = torch.optim.AdamW(
        parameters, lr=chosen.learning_rate, weight_decay=chosen.weight_decay
    )
    run = ShortRun(sum(p.numel() for p in parameters), [], {}, [])
    for step in range(chosen.steps):
        torch.manual_seed((settings.seed << 32) + step)
        found = backward(
            towers,
            tokenise(batches[step], tokens, settings.prompt, settings.batch),
            settings.loss,
            regulariser_strength=trainer_strength(step, settings.ramp),
            full_queries=settings.full_queries,
            chunk=settings.batch.chunk,
        )
        loss = float(found.loss.total)
        if not math.isfinite(loss):
            raise SteelyardError(f"the loss of step {step} is {loss}", "lower the learning rate")
        limit = math.inf if chosen.gradient_norm is None else chosen.gradient_norm
        run.gradient_norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, limit)))
        factor = learning_rate_factor(
            step, warmup=chosen.warmup, total=chosen.steps, floor=chosen.floor
        )
        for group in optimiser.param_groups:
            group["lr"] = chosen.learning_rate * factor
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        run.losses.append(loss)
        run.terms.clear()
        run.terms.update({name: float(value) for name, value in found.loss.terms.items()})
        advance(1)
    return run
