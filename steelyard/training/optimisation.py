"""Optimiser steps: a batch's texts in, better weights out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from steelyard.encoders.causal.tokens import CausalTokenizer
from steelyard.errors import InputError, SteelyardError
from steelyard.training.batches import Batch
from steelyard.training.gather import average_gradients, rank, world_size
from steelyard.training.lora import trained_parameters
from steelyard.training.schedules import learning_rate_factor, trainer_strength
from steelyard.training.settings import TrainingSettings
from steelyard.training.step import backward
from steelyard.training.tokenised import tokenise
from steelyard.training.towers import Towers


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step found, before its update.

    Attributes:
        loss: all terms together.
        terms: by name, coefficients included.
        recall: see ``StepResult``.
        learning_rate: of the update.
        regulariser: s(t).
        gradient_norm: before gradients are scaled down.
        tokens: that the backbone read, light queries aside.
    """

    loss: float
    terms: dict[str, float]
    recall: dict[str, float]
    learning_rate: float
    regulariser: float
    gradient_norm: float
    tokens: int


class Optimisation:
    """AdamW on what of the towers learns.

    Args:
        towers: with their adapter; the head does not learn.
        tokens: their tokenizer.
        settings: all but those of the adapter, which is there.

    Raises:
        InputError: weights in float16.

    Attributes:
        parameters: what learns, by name.
        adamw: the optimiser.
    """

    def __init__(
        self, towers: Towers, tokens: CausalTokenizer, settings: TrainingSettings
    ) -> None:
        if towers.head.weight.dtype == torch.float16:
            raise InputError(
                "weights in float16: the regulariser's gradients are too small for it",
                "take --precision bfloat16 or float32",
            )
        towers.head.requires_grad_(requires_grad=False)
        towers.backbone.train()
        self._towers, self._tokens, self._settings = towers, tokens, settings
        self.parameters = trained_parameters(towers.backbone)
        self.adamw = torch.optim.AdamW(
            self.parameters.values(),
            lr=settings.optimiser.learning_rate,
            weight_decay=settings.optimiser.weight_decay,
        )

    def step(self, number: int, batch: Batch) -> StepReport:
        """Learn from one batch, of which every process reads its share.

        Args:
            number: of the step, from 0: schedules and dropout follow from it.
            batch: of all processes.

        Raises:
            SteelyardError: the loss is no number, or the batch does not fit in memory.
        """
        settings = self._settings
        # Dropout follows from the step, so that a run can go on from any.
        torch.manual_seed((settings.seed << 32) + number * world_size() + rank())
        mine = batch.share(rank(), world_size())
        ids = tokenise(mine, self._tokens, settings.prompt, settings.batch)
        strength = trainer_strength(number, settings.ramp)
        try:
            found = backward(
                self._towers,
                ids,
                settings.loss,
                regulariser_strength=strength,
                full_queries=settings.full_queries,
                chunk=settings.batch.chunk,
            )
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise SteelyardError(
                f"a batch of {len(ids.documents)} passages and {len(ids.full)} queries, "
                f"{ids.tokens:,} tokens, does not fit in memory on {self._towers.device}",
                "lower --chunk, or add --checkpointing: neither changes what is learnt",
            ) from error
        loss = float(found.loss.total)
        if not math.isfinite(loss):
            raise SteelyardError(
                f"the loss of step {number} is {loss}",
                "lower --learning-rate, or take --precision float32; the last checkpoint is kept",
            )
        rate, norm = self._update(number)
        return StepReport(
            loss=loss,
            terms={name: float(value) for name, value in found.loss.terms.items()},
            recall=found.recall,
            learning_rate=rate,
            regulariser=strength,
            gradient_norm=norm,
            tokens=ids.tokens,
        )

    def _update(self, number: int) -> tuple[float, float]:
        """The learning rate, and the norm of the gradients before they are scaled down."""
        chosen, parameters = self._settings.optimiser, self.parameters.values()
        average_gradients(parameters)
        limit = math.inf if chosen.gradient_norm is None else chosen.gradient_norm
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
        if not math.isfinite(norm):
            raise SteelyardError(
                f"the norm of the gradients of step {number} is {norm}",
                "lower --learning-rate, or take --precision float32; the last checkpoint is kept",
            )
        factor = learning_rate_factor(
            number, warmup=chosen.warmup, total=chosen.steps, floor=chosen.floor
        )
        rate = chosen.learning_rate * factor
        for group in self.adamw.param_groups:
            group["lr"] = rate
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        return rate, norm
