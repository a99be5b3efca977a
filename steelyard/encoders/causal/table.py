"""The query table of a causal model: one row a token, under one instruction.

LightRetriever (section 1): row i is the hidden state at eos, after the final norm and not
normalised, of ``bos + prompt + i + eos``. The prompt is the same for all rows, so its keys and
values are computed once. Tokens are then encoded many at a time in ONE sequence, each a block of
two (token, eos) at the same two positions, which sees the prompt and itself: the layout that the
model is trained with. Nothing of the prompt is copied for each token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.causal.model import CausalModel
from steelyard.encoders.causal.tokens import CausalTokenizer

if TYPE_CHECKING:
    import torch

BLOCK_TOKENS = 64
"""Default tokens in a sequence: enough for full-speed products, little wasted attention."""


class TableRows:
    """Makes rows of one instruction's table.

    Args:
        model, tokens: of the same tower.
        prompt: the instruction's text, put before a query.
        block_tokens: vocabulary entries in one sequence.
    """

    def __init__(
        self,
        model: CausalModel,
        tokens: CausalTokenizer,
        prompt: str,
        *,
        block_tokens: int = BLOCK_TOKENS,
    ) -> None:
        import torch

        self._model = model
        self._eos = tokens.eos
        self._block = block_tokens
        ids = torch.tensor([tokens.prompt_ids(prompt)], device=model.device)
        self.prompt_length = ids.shape[1]
        with torch.inference_mode():
            self._cache = model.backbone(input_ids=ids, use_cache=True).past_key_values

    def rows(
        self, ids: NDArray[np.int64], advance: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Rows of these tokens, not normalised.

        Args:
            ids: ``[n]`` token ids.
            advance: told the tokens done.

        Returns:
            float32 ``[n, hidden size]``.
        """
        import torch

        made = np.empty((len(ids), self._model.dims), dtype=np.float32)
        with torch.inference_mode():
            for first in range(0, len(ids), self._block):
                chosen = ids[first : first + self._block]
                made[first : first + len(chosen)] = self._one_sequence(chosen)
                if advance is not None:
                    advance(len(chosen))
        return made

    def _one_sequence(self, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        import torch

        device, prompt = self._model.device, self.prompt_length
        pairs = torch.full((len(chosen), 2), self._eos, dtype=torch.long, device=device)
        pairs[:, 0] = torch.from_numpy(chosen).to(device)
        positions = torch.tensor([prompt, prompt + 1], device=device).repeat(len(chosen))
        hidden = self._model.backbone(
            input_ids=pairs.view(1, -1),
            attention_mask=block_mask(prompt, len(chosen), self._cache_dtype(), device),
            position_ids=positions[None],
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        self._cache.crop(-2 * len(chosen))
        rows: NDArray[np.float32] = hidden[0, 1::2].float().cpu().numpy()
        return rows

    def _cache_dtype(self) -> torch.dtype:
        import torch

        dtype: torch.dtype = getattr(torch, self._model.precision)
        return dtype


def block_mask(prompt: int, blocks: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Additive mask ``[1, 1, 2 x blocks, prompt + 2 x blocks]``: 0 is seen, the rest is not.

    Every block of two sees the whole prompt and, causally, itself.
    """
    import torch

    mask = torch.full(
        (2 * blocks, prompt + 2 * blocks), torch.finfo(dtype).min, dtype=dtype, device=device
    )
    mask[:, :prompt] = 0
    position = torch.arange(2 * blocks, device=device)
    mask[position, prompt + position] = 0
    mask[position[1::2], prompt + position[::2]] = 0
    return mask[None, None]
