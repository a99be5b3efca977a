"""What changes from step to step: the regulariser's strength and the learning rate.

Optimiser steps are counted from 0.
"""

from __future__ import annotations

import math
from typing import Literal

from steelyard.errors import InputError

REGULARISER_RAMP = 4000
"""T of LightRetriever: steps until the regulariser has its full strength."""

LEAST_LEARNING_RATE = 0.1
"""Where the learning rate ends, as a share of its peak."""


def regulariser_strength(
    step: int, ramp: int = REGULARISER_RAMP, *, decay_end: int | None = None, floor: float = 0.1
) -> float:
    """s(t) = (t / ramp)^2, at most 1.

    Args:
        step: t.
        ramp: steps until 1; 0 is full strength from the start.
        decay_end: from ``ramp`` on the strength falls linearly to ``floor`` at this step; None
            keeps it at 1.
        floor: see there.

    Raises:
        InputError: a step or ramp below 0, or a decay that ends before it starts.
    """
    if step < 0 or ramp < 0:
        raise InputError(f"step {step}, ramp {ramp}", "both count from 0")
    if decay_end is not None and decay_end <= ramp:
        raise InputError(
            f"the regulariser decays until step {decay_end}, its ramp ends at {ramp}",
            "end the decay after the ramp",
        )
    if step < ramp:
        return (step / ramp) ** 2
    if decay_end is None:
        return 1.0
    return max(floor, 1.0 - (1.0 - floor) * (step - ramp) / (decay_end - ramp))


def trainer_strength(step: int, ramp: int = REGULARISER_RAMP) -> float:
    """The strength in force at an optimiser step of the official trainer, which lags by one.

    It refreshes the strength after a step with the count before it: steps 0 and 1 have s(0).
    """
    return regulariser_strength(max(step - 1, 0), ramp)


def learning_rate_factor(
    step: int,
    *,
    warmup: int,
    total: int,
    floor: float = LEAST_LEARNING_RATE,
    shape: Literal["cosine", "linear"] = "cosine",
) -> float:
    """Share of the peak learning rate: up linearly in the warm-up, then down to ``floor``.

    Args:
        step: optimiser step.
        warmup: steps until the peak; at step 0 the rate is 0, unless there is no warm-up.
        total: steps of the run; later ones keep the floor.
        floor: share of the peak at the end.
        shape: of the way down.

    Raises:
        InputError: a warm-up longer than the run, or an unknown shape.
    """
    if not 0 <= warmup <= total:
        raise InputError(
            f"a warm-up of {warmup} steps in a run of {total}",
            "make the run longer, or warm up less",
        )
    if shape not in ("cosine", "linear"):
        raise InputError(f"unknown learning rate shape {shape!r}", "cosine or linear")
    if step < warmup:
        return step / warmup
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    left = (1.0 + math.cos(math.pi * done)) / 2.0 if shape == "cosine" else 1.0 - done
    return floor + (1.0 - floor) * left
