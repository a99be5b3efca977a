"""The batches of all processes as one: negatives of the others, gradients of one's own.

Every process computes the loss of the whole batch, and its gradients are those of its own rows.
Summed over processes they are the gradients of the whole batch; the official trainer averages
them (as DistributedDataParallel does), and so does ``average_gradients``. Without a process group
nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist


def world_size() -> int:
    """Processes that train together."""
    if dist.is_available() and dist.is_initialized():
        return int(dist.get_world_size())
    return 1


def rank() -> int:
    """Number of this process, from 0."""
    return int(dist.get_rank()) if world_size() > 1 else 0


def anywhere(flag: bool, device: torch.device) -> bool:
    """Whether it is so in any process; all of them must ask."""
    if world_size() == 1:
        return flag
    return bool(gather(torch.tensor([int(flag)], device=device)).any())


def gather(rows: torch.Tensor) -> torch.Tensor:
    """The rows of all processes, in the order of their ranks.

    Args:
        rows: ``[n, ...]``, of the same shape in every process.

    Returns:
        ``[processes x n, ...]``; only one's own rows carry gradients.
    """
    processes = world_size()
    if processes == 1:
        return rows
    sent = rows.detach().contiguous()
    # Not every backend sends booleans.
    carried = sent.to(torch.uint8) if sent.dtype == torch.bool else sent
    parts = [torch.empty_like(carried) for _ in range(processes)]
    dist.all_gather(parts, carried)
    gathered = [part.to(rows.dtype) for part in parts]
    gathered[dist.get_rank()] = rows
    return torch.cat(gathered)


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Make the gradients of all processes their mean, in place.

    A parameter that takes part must do so in every process: one without a gradient counts as 0.
    """
    processes = world_size()
    if processes == 1:
        return
    for parameter in parameters:
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
        parameter.grad.div_(processes)
