"""GradCache: a contrastive batch larger than memory, with the gradients of the whole.

A contrastive loss needs all vectors of a batch at once, but not all activations. So every chunk
is encoded without gradients first; the loss of all vectors gives the gradient of each vector;
then every chunk is encoded again, with gradients, and goes back from its own vectors' gradients.
Memory is that of one chunk and of the vectors; the price is one more forward pass. Dropout is the
same both times, because the random state of each chunk is kept (Gao et al., 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

Encode = Callable[[], tuple[torch.Tensor, ...]]
"""Encodes one chunk: any number of tensors, with a row for each text."""

Vectors = Mapping[str, tuple[torch.Tensor, ...]]
"""The tensors of a whole batch, by the part of the batch that they come from."""

Result = TypeVar("Result")


def cached_backward(
    parts: Mapping[str, Sequence[Encode]],
    loss: Callable[[Vectors], Result],
    total: Callable[[Result], torch.Tensor],
) -> Result:
    """Add the gradients of a batch to the parameters, chunk by chunk.

    Args:
        parts: of the batch, each as its chunks in order: light queries, documents and so on. A
            part may be empty; it is then left out of the vectors.
        loss: of the vectors of the whole batch, each part's chunks joined. It may return more
            than a number.
        total: what to go back from, out of what ``loss`` returned.

    Returns:
        What ``loss`` returned; going back from it again reaches nothing.
    """
    chunks = {name: list(encodes) for name, encodes in parts.items() if encodes}
    states: dict[str, list[_RandomState]] = {}
    made: dict[str, list[tuple[torch.Tensor, ...]]] = {}
    with torch.no_grad():
        for name, encodes in chunks.items():
            states[name], made[name] = [], []
            for encode in encodes:
                states[name].append(_RandomState.now())
                made[name].append(encode())
    vectors = {
        name: tuple(_leaf(column) for column in zip(*rows, strict=True))
        for name, rows in made.items()
    }
    result = loss(vectors)
    total(result).backward()  # type: ignore[no-untyped-call]
    after = _RandomState.now()
    for name, encodes in chunks.items():
        first = 0
        for encode, state, earlier in zip(encodes, states[name], made[name], strict=True):
            size = len(earlier[0])
            gradients = [_rows(v, first, size) for v in vectors[name]]
            first += size
            state.restore()
            _go_back(encode(), gradients)
    after.restore()
    return result


def chunks_of(count: int, size: int) -> list[slice]:
    """Slices of a batch: ``size`` rows each, the last what is left."""
    return [slice(first, min(first + size, count)) for first in range(0, count, size)]


def _leaf(column: Sequence[torch.Tensor]) -> torch.Tensor:
    """The chunks' rows joined, as something that collects a gradient."""
    joined = torch.cat(list(column)).detach()
    return joined.requires_grad_(joined.is_floating_point())


def _rows(vectors: torch.Tensor, first: int, size: int) -> torch.Tensor | None:
    return None if vectors.grad is None else vectors.grad[first : first + size]


def _go_back(found: tuple[torch.Tensor, ...], gradients: Sequence[torch.Tensor | None]) -> None:
    """From a chunk's vectors; what the loss did not use, or nothing made, is left out."""
    pairs = [
        (vector, gradient.to(vector.dtype))
        for vector, gradient in zip(found, gradients, strict=True)
        if gradient is not None and vector.requires_grad
    ]
    if pairs:
        torch.autograd.backward([v for v, _ in pairs], [g for _, g in pairs])


@dataclass(frozen=True, slots=True)
class _RandomState:
    """What dropout draws from, on the CPU and on every accelerator of this process."""

    cpu: torch.Tensor
    gpus: list[torch.Tensor]
    mps: torch.Tensor | None

    @classmethod
    def now(cls) -> _RandomState:
        gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
        return cls(torch.get_rng_state(), gpus, mps)

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.gpus:
            torch.cuda.set_rng_state_all(self.gpus)
        if self.mps is not None:
            torch.mps.set_rng_state(self.mps)
