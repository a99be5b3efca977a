"""Keys and values that many texts go on from: reading on leaves them as they are."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache


class ContinuedCache(DynamicCache):  # type: ignore[misc]
    """The first tokens of what a model has read, for a batch of any size.

    A layer's new keys and values live as long as the layer works, so that a batch takes no more
    memory than one that is read whole.

    Args:
        read: of one text.
        tokens: how many of its first tokens.
    """

    def __init__(self, read: DynamicCache, tokens: int) -> None:
        super().__init__()
        for index, layer in enumerate(read.layers):
            super().update(layer.keys[..., :tokens, :], layer.values[..., :tokens, :], index)

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a layer, the texts' own after those that were read."""
        layer = self.layers[layer_idx]
        rows = len(key_states)
        keys, values = (
            torch.cat([begun.expand(rows, -1, -1, -1), new], dim=-2)
            for begun, new in ((layer.keys, key_states), (layer.values, value_states))
        )
        return keys, values
