"""Both towers over one shared backbone, with gradients.

Documents and full queries are read as by ``encoders.causal.tower``: ``bos A eos``, dense at eos
after the final norm, sparse by the LM head over the tokens between. Light queries are read by
blocks. Nothing here knows batches of text: rows are token ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import normalize

from steelyard.encoders.causal.sparse_head import SLICE_TOKENS
from steelyard.encoders.causal.tokens import padded
from steelyard.errors import InputError
from steelyard.training.max_pooling import sparse_weights
from steelyard.training.query_blocks import light_queries

Rows = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Towers:
    """What turns token ids into the vectors of the losses.

    Attributes:
        backbone: gives ``last_hidden_state`` after the final norm; adapters in place.
        head: the LM head, one linear layer.
        prompt_ids: bos and the query prompt.
        eos: id that ends texts and blocks.
        pad: id that takes no part in a light query; None where there is none.
        logit_scale, logit_cap: of the model family, see ``CausalModel``.
        slice_tokens: tokens whose logits are held at a time.
        share_blocks: see ``query_blocks.light_queries``.
    """

    backbone: Any
    head: Any
    prompt_ids: tuple[int, ...]
    eos: int
    pad: int | None = None
    logit_scale: float = 1.0
    logit_cap: float | None = None
    slice_tokens: int = SLICE_TOKENS
    share_blocks: bool = False

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        place: torch.device = self.head.weight.device
        return place

    @property
    def vocabulary_size(self) -> int:
        """Columns of the sparse vectors: all of the head's, as in the official training."""
        return int(self.head.out_features)

    def arithmetic(self) -> AbstractContextManager[None]:
        """Layers compute in the dtype of the frozen weights, whatever the adapter's is.

        To be entered for each forward pass by itself: what it remembers of the weights must not
        go from a pass without gradients to one with.
        """
        dtype = self.head.weight.dtype
        half = dtype in (torch.bfloat16, torch.float16)
        return torch.autocast(self.device.type, dtype=dtype if half else None, enabled=half)

    def light(self, queries: Rows) -> torch.Tensor:
        """Light query vectors ``[n, d]``.

        Args:
            queries: token ids without prompt and specials.
        """
        return light_queries(
            self.backbone,
            queries,
            self.prompt_ids,
            self.eos,
            pad=self.pad,
            dtype=self.head.weight.dtype,
            device=self.device,
            share=self.share_blocks,
        )

    def full(self, queries: Rows) -> torch.Tensor:
        """Full query vectors ``[n, d]``: a query read as a document is.

        Args:
            queries: ``bos prompt A eos``.
        """
        hidden = self._read(queries)
        return _dense(hidden, [len(row) for row in queries])

    def documents(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """Both arms of n documents from one forward pass.

        Args:
            rows: ``bos A eos``.

        Returns:
            Dense ``[n, d]`` unit rows, sparse ``[n, V]`` weights.
        """
        hidden = self._read(rows)
        lengths = [len(row) for row in rows]
        inner = torch.cat([hidden[i, 1 : length - 1] for i, length in enumerate(lengths)])
        weights = sparse_weights(
            inner.to(self.device),
            [length - 2 for length in lengths],
            self.head,
            scale=self.logit_scale,
            cap=self.logit_cap,
            slice_tokens=self.slice_tokens,
        )
        return _dense(hidden, lengths), weights

    def counts(self, queries: Rows) -> torch.Tensor:
        """How often each query has each token, float32 ``[n, V]``.

        Args:
            queries: token ids of ``" " + query``, without specials.
        """
        counts = torch.zeros(len(queries), self.vocabulary_size)
        for row, query in enumerate(queries):
            ids = torch.tensor(list(query), dtype=torch.long)
            counts[row].index_add_(0, ids, torch.ones(len(ids)))
        return counts.to(self.device)

    def _read(self, rows: Rows) -> torch.Tensor:
        """Hidden states ``[n, L, d]``; padding comes last, where causal attention never looks."""
        shortest = min(map(len, rows), default=0)
        if shortest < 2:
            raise InputError(
                f"a text of {shortest} tokens", "bos and eos alone are 2: tokenise with both"
            )
        ids = torch.from_numpy(padded(rows, self.eos)).to(self.device)
        hidden: torch.Tensor = self.backbone(input_ids=ids, use_cache=False).last_hidden_state
        return hidden


def _dense(hidden: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """Unit vectors at eos."""
    place = torch.arange(len(lengths), device=hidden.device)
    last = torch.tensor(lengths, device=hidden.device) - 1
    states = hidden[place, last]
    # Half precision is too coarse to normalise in.
    return normalize(states if states.dtype == torch.float64 else states.float(), dim=1)
