"""One optimiser step's loss and gradients, whole or in chunks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from steelyard.training.grad_cache import Encode, Vectors, cached_backward, chunks_of
from steelyard.training.losses import (
    Loss,
    LossSettings,
    Representations,
    light_retriever_loss,
    passages_each,
)
from steelyard.training.tokenised import Rows, TokenisedBatch
from steelyard.training.towers import Towers


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step found.

    Attributes:
        loss: its terms, detached from the model.
        recall: share of queries whose positive scores above all other passages of the batch, by
            arm: ``light_dense``, ``light_sparse``, ``dense``; of this process's own vectors.
    """

    loss: Loss
    recall: dict[str, float]


def backward(
    towers: Towers,
    batch: TokenisedBatch,
    settings: LossSettings,
    *,
    regulariser_strength: float,
    full_queries: bool = True,
    chunk: int | None = None,
) -> StepResult:
    """Add a batch's gradients to the parameters.

    Args:
        towers: see there.
        batch: of this process.
        settings: of the loss.
        regulariser_strength: s(t).
        full_queries: read queries with the full model, too.
        chunk: texts with activations at a time (GradCache); None: the whole batch at once, which
            saves a forward pass.
    """
    parts = _parts(towers, batch, chunk, full_queries=full_queries)
    counts = towers.counts(batch.counted)

    def loss_of(vectors: Vectors) -> StepResult:
        made = Representations(
            light=vectors["light"][0],
            counts=counts,
            document_dense=vectors["documents"][0],
            document_sparse=vectors["documents"][1],
            full=vectors["full"][0] if "full" in vectors else None,
        )
        loss = light_retriever_loss(made, settings, regulariser_strength=regulariser_strength)
        return StepResult(loss, _recall(made))

    if chunk is not None:
        return _detached(cached_backward(parts, loss_of, lambda found: found.loss.total))
    found = loss_of({name: encodes[0]() for name, encodes in parts.items() if encodes})
    found.loss.total.backward()  # type: ignore[no-untyped-call]
    return _detached(found)


def _parts(
    towers: Towers, batch: TokenisedBatch, chunk: int | None, *, full_queries: bool
) -> dict[str, list[Encode]]:
    def read(
        encode: Callable[[Rows], tuple[torch.Tensor, ...]], rows: Rows
    ) -> tuple[torch.Tensor, ...]:
        with towers.arithmetic():
            return encode(rows)

    def cut(encode: Callable[[Rows], tuple[torch.Tensor, ...]], rows: Rows) -> list[Encode]:
        parts = chunks_of(len(rows), chunk or len(rows))
        return [partial(read, encode, rows[part]) for part in parts]

    return {
        "light": cut(lambda rows: (towers.light(rows),), batch.light),
        "full": cut(lambda rows: (towers.full(rows),), batch.full) if full_queries else [],
        "documents": cut(towers.documents, batch.documents),
    }


def _recall(made: Representations) -> dict[str, float]:
    passages = passages_each(made)
    with torch.no_grad():
        scores = {
            "light_dense": made.light @ made.document_dense.T,
            "light_sparse": made.counts.to(made.document_sparse.dtype) @ made.document_sparse.T,
        }
        if made.full is not None:
            scores["dense"] = made.full @ made.document_dense.T
        return {name: _first(values, passages) for name, values in scores.items()}


def _first(scores: torch.Tensor, passages: int) -> float:
    positives = torch.arange(len(scores), device=scores.device) * passages
    return float((scores.argmax(dim=1) == positives).float().mean())


def _detached(found: StepResult) -> StepResult:
    terms = {name: value.detach() for name, value in found.loss.terms.items()}
    return StepResult(Loss(found.loss.total.detach(), terms), found.recall)
