"""Learning the rows: a query's look-up should score documents as its teacher vector does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.distillation.settings import DistillationSettings
from steelyard.encoders.query.tokenizer import TokenRows
from steelyard.errors import SteelyardError, needs_extra
from steelyard.types import DenseVectors


@dataclass(frozen=True, slots=True)
class Lessons:
    """n pseudo-queries and what is to be learned from them.

    Attributes:
        tokens: of each, none empty.
        targets: ``[n, d]`` unit rows.
        sources: ``[n]`` index of each one's source document.
        hard: ``[n, h]`` indices of each one's best documents by the teacher.
        temperature: T of the losses on scores.
    """

    tokens: TokenRows
    targets: DenseVectors
    sources: NDArray[np.int64]
    hard: NDArray[np.int64]
    temperature: float


@dataclass(frozen=True, slots=True)
class TrainedTable:
    """What training leaves.

    Attributes:
        rows: float32 ``[V, d]``, each token's weight folded in.
        losses: mean loss of each epoch.
        touched: how many rows some pseudo-query trained.
    """

    rows: NDArray[np.float32]
    losses: list[float]
    touched: int


def train_table(
    start: DenseVectors,
    lessons: Lessons,
    documents: DenseVectors,
    settings: DistillationSettings,
    rng: np.random.Generator,
    step: Callable[[float], None] | None = None,
) -> TrainedTable:
    """Fit rows and one log-weight a token by Adam with cosine decay.

    Loss: (1 - cosine(look-up, target)) + KL(softmax(target . C / T) || softmax(look-up . C / T)),
    and, if ``settings.margin`` asks for it, margin-MSE: the mean over C of the squared difference
    between the look-up's and the target's margins of the source document, over T. Rows that no
    pseudo-query touches stay at the start, so only the others are held in memory.

    Args:
        start: ``[V, d]`` rows of about unit length.
        lessons: the pseudo-queries.
        documents: ``[N, d]`` the candidates are drawn from.
        settings: the recipe.
        rng: order of batches and candidates.
        step: told the loss after every step.
    """
    with needs_extra("index"):
        import torch
        from torch.nn.functional import embedding_bag, kl_div, log_softmax, normalize, softmax

    tokens, targets, hard = lessons.tokens, lessons.targets, lessons.hard
    used, compact = np.unique(tokens.ids, return_inverse=True)
    rows = torch.nn.Parameter(torch.from_numpy(start[used].copy()))
    log_weight = torch.nn.Parameter(torch.zeros(len(used)))
    optimiser = torch.optim.Adam([rows, log_weight], lr=settings.learning_rate, fused=True)
    compacted = replace(tokens, ids=compact.astype(np.int64))
    everything = torch.from_numpy(np.array(documents))
    count = len(targets)
    steps = settings.epochs * math.ceil(count / settings.batch)
    floor = settings.final_learning_rate
    losses: list[float] = []
    done = 0
    for _ in range(settings.epochs):
        order, total = rng.permutation(count), 0.0
        for first in range(0, count, settings.batch):
            batch = order[first : first + settings.batch]
            for group in optimiser.param_groups:
                cosine = (1 + math.cos(math.pi * done / steps)) / 2
                group["lr"] = settings.learning_rate * (floor + (1 - floor) * cosine)
            chosen_rows = compacted.select(batch)
            ids = torch.from_numpy(chosen_rows.ids)
            summed = embedding_bag(
                ids,
                rows,
                torch.from_numpy(chosen_rows.indptr[:-1]),
                mode="sum",
                per_sample_weights=log_weight.exp()[ids],
            )
            query, target = normalize(summed, dim=1), torch.from_numpy(targets[batch])
            chosen = torch.from_numpy(_candidates(batch, hard, len(documents), settings, rng))
            candidates = everything[chosen].T / lessons.temperature
            by_query, by_target = query @ candidates, target @ candidates
            loss = (1 - (query * target).sum(dim=1)).mean()
            if settings.divergence:
                divergence = kl_div(
                    log_softmax(by_query, dim=1), softmax(by_target, dim=1), reduction="batchmean"
                )
                loss = loss + settings.divergence * divergence
            if settings.margin:
                own = everything[torch.from_numpy(lessons.sources[batch])] / lessons.temperature
                lost = ((query - target) * own).sum(dim=1, keepdim=True)
                margins = lost - (by_query - by_target)
                loss = loss + settings.margin * margins.square().mean()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            value = float(loss.detach())
            if not math.isfinite(value):
                raise SteelyardError(
                    f"the loss became {value} at step {done + 1} of {steps}",
                    "a vector of the corpus or the teacher is not finite: check the model",
                )
            total += value * len(batch)
            done += 1
            if step is not None:
                step(value)
        losses.append(total / count)
    table = start.copy()
    with torch.no_grad():
        table[used] = (rows * log_weight.exp()[:, None]).numpy()
    return TrainedTable(table, losses, len(used))


def _candidates(
    batch: NDArray[np.int64],
    hard: NDArray[np.int64],
    documents: int,
    settings: DistillationSettings,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Random documents and the best ones of some of the batch's queries, each once."""
    drawn = rng.choice(documents, size=min(settings.candidates, documents), replace=False)
    queries = rng.choice(batch, size=min(settings.hard_queries, len(batch)), replace=False)
    return np.unique(np.concatenate([drawn, hard[queries].ravel()]))
