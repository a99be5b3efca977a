"""The LM head as a sparse encoder, in bounded memory (LightRetriever, section 1).

A document's weight of a term is log(1 + max(0, largest logit of the term over its tokens)).
``[tokens, vocabulary]`` is never held: logits are made for a slice of tokens at a time and only
the running maximum of every document is kept. Beside the hidden states this takes at most
``(slice + 2 x documents) x vocabulary x 4`` bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from steelyard.types import SparseVectors

if TYPE_CHECKING:
    import torch

    from steelyard.encoders.causal.model import CausalModel

SLICE_TOKENS = 256
"""Default tokens in a slice: enough for a full-speed matrix product."""


def sparse_head(
    hidden: torch.Tensor,
    counts: list[int],
    model: CausalModel,
    vocabulary_size: int,
    max_terms: int | None,
    slice_tokens: int = SLICE_TOKENS,
) -> SparseVectors:
    """Sparse document vectors of hidden states; arguments as of ``max_logits``.

    Args:
        hidden, counts: tokens of n documents, bos and eos left out.
        model: whose LM head.
        vocabulary_size: number of terms.
        max_terms: heaviest terms kept a document; None keeps all.
        slice_tokens: tokens at a time.
    """
    largest = max_logits(hidden, counts, model.head, vocabulary_size, slice_tokens)
    weights = term_weights(largest, scale=model.logit_scale, cap=model.logit_cap)
    return heaviest_terms(weights, max_terms)


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
    compute = _logits_of(head, hidden.dtype, vocabulary_size, slice_tokens)
    for first in range(0, len(hidden), slice_tokens):
        piece = hidden[first : first + slice_tokens].to(place)
        logits = compute(piece)
        begin, end = first, first + len(piece)
        while begin < end:
            while ends[row] <= begin:
                row += 1
            stop = min(end, int(ends[row]))
            part = logits[begin - first : stop - first].amax(dim=0)
            torch.maximum(largest[row], part, out=largest[row])
            begin = stop
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
    if max_terms is None or max_terms >= size:
        return SparseVectors.from_rows([_all_terms(row) for row in weights], size)
    limit = max_terms
    # One more than the limit: if it weighs as much as the last kept, ids decide.
    values, ids = torch.topk(weights, limit + 1, dim=1)
    kept_values, kept_ids = values.cpu().numpy(), ids.cpu().numpy().astype(np.int32)
    rows = []
    for index in range(count):
        row_values, row_ids = kept_values[index], kept_ids[index]
        if row_values[limit] == row_values[limit - 1] > 0:
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


def _all_terms(row: torch.Tensor) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Ids and weights of one row ``[V]``, by id; NaN stays, so that it is seen."""
    ids = (~(row <= 0)).nonzero()[:, 0]
    return ids.cpu().numpy().astype(np.int32), row[ids].cpu().numpy()


def _logits_of(
    head: Any, dtype: torch.dtype, vocabulary_size: int, slice_tokens: int
) -> Callable[[torch.Tensor], torch.Tensor]:
    """What makes logits ``[t, V]`` of t tokens.

    A plain matrix goes without its padding columns and into one buffer: giving large blocks back
    and taking them again costs time, and up to twice the memory.
    """
    import torch

    if type(head) is not torch.nn.Linear or head.weight.dtype != dtype:
        return lambda hidden: head(hidden)[:, :vocabulary_size]
    weight = head.weight[:vocabulary_size].T
    bias = None if head.bias is None else head.bias[:vocabulary_size]
    buffer = torch.empty(slice_tokens, vocabulary_size, dtype=dtype, device=weight.device)

    def compute(hidden: torch.Tensor) -> torch.Tensor:
        logits = buffer[: len(hidden)]
        torch.mm(hidden, weight, out=logits)
        return logits if bias is None else logits.add_(bias)

    return compute


def _device_of(head: Any, hidden: torch.Tensor) -> torch.device:
    """Where the head computes: a model spread over devices may have it elsewhere."""
    weight = getattr(head, "weight", None)
    if weight is None or weight.device.type == "meta":
        return hidden.device
    place: torch.device = weight.device
    return place
