"""The LM head as a sparse encoder, in bounded memory (LightRetriever, section 1).

A document's weight of a term is log(1 + max(0, largest logit of the term over its tokens)).
``[tokens, vocabulary]`` is never held: logits are made for a slice of tokens at a time and only
the running maximum of every document is kept. Beside the hidden states this takes at most
``(slice + 2 x documents) x vocabulary x 4`` bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from steelyard.types import SparseVectors

if TYPE_CHECKING:
    import torch

SLICE_TOKENS = 256
"""Default tokens in a slice: enough for a full-speed matrix product."""


def max_logits(
    hidden: torch.Tensor,
    counts: list[int],
    head: Any,
    vocabulary_size: int,
    slice_tokens: int = SLICE_TOKENS,
) -> torch.Tensor:
    """The largest logit of every term over each document's tokens.

    Args:
        hidden: ``[sum(counts), d]``, the documents' tokens one after the other.
        counts: tokens of each of n documents; 0 is allowed.
        head: the LM head module; its columns from ``vocabulary_size`` on are dropped, because no
            query has a token for them.
        vocabulary_size: number of terms.
        slice_tokens: tokens at a time.

    Returns:
        float32 ``[n, vocabulary_size]``; minus infinity in the row of a document without tokens.
    """
    import torch

    place = _device_of(head, hidden)
    largest = torch.full(
        (len(counts), vocabulary_size), -torch.inf, dtype=torch.float32, device=place
    )
    ends = np.cumsum(counts)
    row = 0
    for first in range(0, len(hidden), slice_tokens):
        piece = hidden[first : first + slice_tokens].to(place)
        logits = _logits(head, piece, vocabulary_size)
        begin, end = first, first + len(piece)
        while begin < end:
            while ends[row] <= begin:
                row += 1
            stop = min(end, int(ends[row]))
            part = logits[begin - first : stop - first].amax(dim=0)
            torch.maximum(largest[row], part, out=largest[row])
            begin = stop
        del logits
    return largest


def term_weights(
    largest: torch.Tensor, *, scale: float = 1.0, cap: float | None = None
) -> torch.Tensor:
    """log1p(ReLU(logit)) in place, float32 ``[n, V]``.

    Args:
        largest: from ``max_logits``.
        scale, cap: of the model family; they keep the order, so they may follow the maximum.
    """
    if scale != 1.0:
        largest.mul_(scale)
    if cap:
        largest.div_(cap).tanh_().mul_(cap)
    return largest.relu_().log1p_()


def heaviest_terms(weights: torch.Tensor, max_terms: int | None) -> SparseVectors:
    """Rows of the heaviest terms above zero; of equal ones those of smaller id.

    NaN and infinite weights are kept, so that the caller can reject the document.

    Args:
        weights: ``[n, V]``, not negative.
        max_terms: most terms a row; None keeps all.
    """
    import torch

    count, size = weights.shape
    limit = min(max_terms or size, size)
    # One more than the limit: if it weighs as much as the last kept, ids decide.
    values, ids = torch.topk(weights, min(limit + 1, size), dim=1)
    kept_values, kept_ids = values.cpu().numpy(), ids.cpu().numpy().astype(np.int32)
    rows = []
    for index in range(count):
        row_values, row_ids = kept_values[index], kept_ids[index]
        if size > limit and row_values[limit] == row_values[limit - 1] > 0:
            tied = weights[index] >= float(row_values[limit])
            row_ids = tied.nonzero()[:, 0].cpu().numpy().astype(np.int32)
            row_values = weights[index][tied].cpu().numpy()
            chosen = np.lexsort((row_ids, -row_values))
            row_ids, row_values = row_ids[chosen], row_values[chosen]
        row_ids, row_values = row_ids[:limit], row_values[:limit]
        order = np.argsort(row_ids)
        order = order[~(row_values[order] <= 0)]
        rows.append((row_ids[order], row_values[order]))
    return SparseVectors.from_rows(rows, size)


def _logits(head: Any, hidden: torch.Tensor, vocabulary_size: int) -> torch.Tensor:
    """Logits ``[t, V]`` without the head's padding columns where they can be left out."""
    import torch

    if type(head) is torch.nn.Linear:
        bias = None if head.bias is None else head.bias[:vocabulary_size]
        logits = torch.nn.functional.linear(hidden, head.weight[:vocabulary_size], bias)
    else:
        logits = head(hidden)[:, :vocabulary_size]
    return logits


def _device_of(head: Any, hidden: torch.Tensor) -> torch.device:
    """Where the head computes: a model spread over devices may have it elsewhere."""
    weight = getattr(head, "weight", None)
    if weight is None or weight.device.type == "meta":
        return hidden.device
    place: torch.device = weight.device
    return place
