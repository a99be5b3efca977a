"""Light query vectors with gradients: the block-masked forward (LightRetriever, section 1).

A sequence is ``[bos] prompt [t1 eos] [t2 eos] ...``. The prompt is causal; every block of two sees
the prompt and, causally, itself, never another block; every block stands at positions (P, P + 1).
So the hidden state at a block's eos is the table's row of its token, and the mean over a query's
tokens is what the look-up will give.

One difference from the official code, where a query spells a special token: that averages over
every position that holds eos, so a literal eos counts twice. Here only the blocks' own eos count
and pads are left out, as in the look-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import embedding_bag, normalize

from steelyard.errors import InputError

SHARED_TOKENS = 64
"""Tokens in a sequence that many queries share."""


@dataclass(frozen=True, slots=True)
class BlockBatch:
    """n sequences of blocks, padded to L with eos.

    Attributes:
        input_ids, position_ids: ``[n, L]``.
        mask: additive, ``[n, 1, L, L]``: 0 is seen, the rest is not. Padding sees itself, so
            that no row is without anything to see.
        ends: ``[n, L]`` bool, the blocks' eos.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    mask: torch.Tensor
    ends: torch.Tensor


def block_batch(
    rows: Sequence[Sequence[int]],
    prompt_ids: Sequence[int],
    eos: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> BlockBatch:
    """Lay out sequences.

    Args:
        rows: token ids of n sequences, without prompt and specials.
        prompt_ids: bos and the prompt: what a query starts with.
        eos: id that ends a block.
        dtype: of the mask: the model's.
        device: where to.
    """
    prompt = len(prompt_ids)
    length = prompt + 2 * max(map(len, rows), default=0)
    ids = np.full((len(rows), length), eos, dtype=np.int64)
    ids[:, :prompt] = prompt_ids
    positions = np.zeros_like(ids)
    positions[:, :prompt] = np.arange(prompt)
    ends = np.zeros(ids.shape, dtype=bool)
    for index, row in enumerate(rows):
        stop = prompt + 2 * len(row)
        ids[index, prompt:stop:2] = row
        positions[index, prompt:stop] = np.tile([prompt, prompt + 1], len(row))
        ends[index, prompt + 1 : stop : 2] = True
    return BlockBatch(
        input_ids=torch.from_numpy(ids).to(device),
        position_ids=torch.from_numpy(positions).to(device),
        mask=_mask([len(row) for row in rows], prompt, length, dtype).to(device),
        ends=torch.from_numpy(ends).to(device),
    )


def block_states(backbone: Any, batch: BlockBatch) -> torch.Tensor:
    """Hidden states at the blocks' eos, not normalised.

    Args:
        backbone: gives ``last_hidden_state`` after the final norm.
        batch: of n sequences with t blocks in all.

    Returns:
        ``[t, d]``, sequence by sequence.
    """
    hidden = backbone(
        input_ids=batch.input_ids,
        attention_mask=batch.mask,
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state
    states: torch.Tensor = hidden[batch.ends.to(hidden.device)]
    return states


def light_queries(
    backbone: Any,
    queries: Sequence[Sequence[int]],
    prompt_ids: Sequence[int],
    eos: int,
    *,
    pad: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    share: bool = False,
) -> torch.Tensor:
    """Query vectors as the look-up will give them.

    Args:
        backbone: see ``block_states``.
        queries: token ids of n queries, without prompt and specials.
        prompt_ids, eos, dtype, device: see ``block_batch``.
        pad: id that takes no part.
        share: encode each different token of the batch once, in sequences that all queries share,
            not a sequence for each query. The vectors and gradients are the same, as blocks do
            not see each other; with dropout, a token's is then one for the batch.

    Returns:
        ``[n, d]`` float32 unit rows; zeros for a query without tokens.
    """
    kept = [[token for token in query if token != pad] for query in queries]
    if not kept:
        raise InputError("a batch without queries", "leave it out")
    lengths = [len(row) for row in kept]
    flat = np.array([token for row in kept for token in row], dtype=np.int64)
    if share:
        tokens, places = np.unique(flat, return_inverse=True)
        rows = [
            tokens[first : first + SHARED_TOKENS].tolist()
            for first in range(0, len(tokens), SHARED_TOKENS)
        ]
    else:
        rows, places = kept, np.arange(len(flat))
    batch = block_batch(rows or kept, prompt_ids, eos, dtype=dtype, device=device)
    states = block_states(backbone, batch)
    states = states.float() if states.dtype != torch.float64 else states
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    means = embedding_bag(
        torch.from_numpy(places.reshape(-1)).to(states.device),
        states,
        torch.from_numpy(starts).to(states.device),
        mode="mean",
    )
    return normalize(means, dim=1)


def _mask(counts: Sequence[int], prompt: int, length: int, dtype: torch.dtype) -> torch.Tensor:
    """The additive mask of sequences with these numbers of blocks."""
    # Blocks are numbered from 0, the prompt is -1, and a padded position is a block by itself.
    number = torch.full((length,), -1)
    number[prompt:] = torch.arange(length - prompt) // 2
    place = torch.arange(length)
    causal = place[:, None] >= place
    seen = causal & ((number[:, None] == number) | (number == -1))
    used = prompt + 2 * torch.tensor(list(counts))
    padding = place >= used[:, None]
    seen = seen & ~padding[:, :, None] & ~padding[:, None, :]
    seen |= torch.diag_embed(padding)
    mask = torch.full(seen.shape, torch.finfo(dtype).min, dtype=dtype)
    return mask.masked_fill_(seen, 0)[:, None]
