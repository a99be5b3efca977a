"""The LM head's largest logits with gradients, in bounded memory.

The training twin of ``encoders.causal.sparse_head``: ``[tokens, vocabulary]`` is held neither on
the way forward nor on the way back. Forward, logits are made for a slice of tokens at a time, and
of every document and term the largest logit and its token are kept. The gradient reaches that
token only, so backward needs no logits again: slice by slice, the incoming gradients are laid out
by token and multiplied with the head.

Of tokens with equal logits the first has the gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from steelyard.encoders.causal.sparse_head import SLICE_TOKENS
from steelyard.errors import InputError


def sparse_weights(
    hidden: torch.Tensor,
    counts: list[int],
    head: Any,
    *,
    scale: float = 1.0,
    cap: float | None = None,
    slice_tokens: int = SLICE_TOKENS,
) -> torch.Tensor:
    """Document weights log1p(ReLU(largest logit)).

    Args:
        hidden, counts, head, slice_tokens: see ``pooled_logits``.
        scale, cap: of the model family: ``cap x tanh(scale x logit / cap)``.

    Returns:
        float32 ``[n, V]``; zeros for a document without tokens.
    """
    largest = pooled_logits(hidden, counts, head, slice_tokens)
    if scale != 1.0:
        largest = largest * scale
    if cap:
        largest = torch.tanh(largest / cap) * cap
    return torch.log1p(torch.relu(largest))


def pooled_logits(
    hidden: torch.Tensor, counts: list[int], head: Any, slice_tokens: int = SLICE_TOKENS
) -> torch.Tensor:
    """The largest logit of every term over each document's tokens.

    Args:
        hidden: ``[sum(counts), d]``, the documents' tokens one after the other.
        counts: tokens of each of n documents; 0 is allowed.
        head: the LM head, one linear layer.
        slice_tokens: tokens whose logits are held at a time.

    Returns:
        ``[n, V]``, float32 (float64 for a float64 model); minus infinity in the row of a document
        without tokens.

    Raises:
        InputError: a head of another kind, as one that carries an adapter.
    """
    if type(head) is not torch.nn.Linear:
        raise InputError(
            f"the LM head is a {type(head).__name__}, not one linear layer",
            "leave the LM head out of the adapter's layers, and do not quantise it",
        )
    weight, bias = head.weight, head.bias
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
    else:
        dtype = weight.dtype
    pooled: torch.Tensor = _MaxPooling.apply(
        hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype),
        tuple(counts), slice_tokens,
    )  # fmt: skip
    return pooled


class _MaxPooling(torch.autograd.Function):
    """Largest logits; saved for the way back are the head and one token index a weight."""

    @staticmethod
    def forward(
        context: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        counts: tuple[int, ...],
        slice_tokens: int,
    ) -> torch.Tensor:
        wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
        shape = (len(counts), len(weight))
        largest = torch.full(shape, -torch.inf, dtype=wide, device=weight.device)
        winners = torch.full(shape, -1, dtype=torch.int32, device=weight.device)
        transposed = weight.T
        for first in range(0, len(hidden), slice_tokens):
            logits = hidden[first : first + slice_tokens] @ transposed
            if bias is not None:
                logits += bias
            for row, begin, end in _parts(counts, first, first + len(logits)):
                best, place = logits[begin - first : end - first].max(dim=0)
                better = best > largest[row]
                largest[row] = torch.maximum(best.to(wide), largest[row])  # NaN stays
                winners[row] = torch.where(better, (place + begin).int(), winners[row])
        context.save_for_backward(hidden, weight, winners)
        context.counts, context.slice_tokens = counts, slice_tokens
        context.has_bias = bias is not None
        return largest

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> Any:
        hidden, weight, winners = context.saved_tensors
        to_hidden = torch.empty_like(hidden) if context.needs_input_grad[0] else None
        to_weight = None
        if context.needs_input_grad[1]:
            to_weight = torch.zeros_like(weight, dtype=gradient.dtype)
        for first in range(0, len(hidden), context.slice_tokens):
            piece = hidden[first : first + context.slice_tokens]
            by_token = torch.zeros(
                len(piece), len(weight), dtype=weight.dtype, device=weight.device
            )
            for row, begin, end in _parts(context.counts, first, first + len(piece)):
                mine = (winners[row] >= begin) & (winners[row] < end)
                tokens = (winners[row].long() - first).clamp_(0, len(piece) - 1)
                values = torch.where(mine, gradient[row], 0).to(weight.dtype)
                by_token.scatter_add_(0, tokens[None], values[None])
            if to_hidden is not None:
                to_hidden[first : first + len(piece)] = by_token @ weight
            if to_weight is not None:
                to_weight += by_token.T @ piece
        to_bias = None
        if context.has_bias and context.needs_input_grad[2]:
            to_bias = gradient.masked_fill(winners < 0, 0).sum(dim=0).to(weight.dtype)
        if to_weight is not None:
            to_weight = to_weight.to(weight.dtype)
        return to_hidden, to_weight, to_bias, None, None


def _parts(counts: tuple[int, ...], first: int, last: int) -> list[tuple[int, int, int]]:
    """(document, first token, last token + 1) of the documents in a slice of tokens."""
    ends = np.cumsum(counts)
    row = int(np.searchsorted(ends, first, side="right"))
    found, begin = [], first
    while begin < last:
        stop = min(last, int(ends[row]))
        if stop > begin:
            found.append((row, begin, stop))
        begin, row = stop, row + 1
    return found
