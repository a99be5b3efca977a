"""A training run in memory: without a folder, for ablations that take minutes.

The steps are those of ``trainer``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from steelyard.encoders.causal.tokens import CausalTokenizer
from steelyard.training.batches import Batches
from steelyard.training.optimisation import Optimisation, StepReport
from steelyard.training.settings import TrainingSettings
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
    optimisation = Optimisation(towers, tokens, settings)
    reports: list[StepReport] = []
    for step in range(settings.optimiser.steps):
        reports.append(optimisation.step(step, batches[step]))
        advance(1)
    return ShortRun(
        parameters=sum(parameter.numel() for parameter in optimisation.parameters.values()),
        losses=[report.loss for report in reports],
        terms=reports[-1].terms,
        gradient_norms=[report.gradient_norm for report in reports],
    )
