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
from steelyard.encoders.causal.prompt_cache import read_prompt
from steelyard.encoders.causal.tokens import CausalTokenizer

if TYPE_CHECKING:
    import torch

BLOCK_TOKENS = 64
"""Default tokens in a sequence: enough for full-speed products, little wasted attention."""

NAIVE_BATCH = 64
_TRIED_ROWS = 3
_LEAST_COSINE = 0.99


class TableRows:
    """Makes rows of one instruction's table.

    A few rows are first made both ways. Where the model cannot share a prompt (recurrent layers,
    positions that are not rotary, a window shorter than the prompt), all are made naively.

    Args:
        model, tokens: of the same tower.
        prompt: the instruction's text, put before a query.
        block_tokens: vocabulary entries in one sequence.

    Attributes:
        shared: whether the prompt is read once.
    """

    def __init__(
        self,
        model: CausalModel,
        tokens: CausalTokenizer,
        prompt: str,
        *,
        block_tokens: int = BLOCK_TOKENS,
    ) -> None:
        self._model, self._tokens, self._prompt = model, tokens, prompt
        self._block = block_tokens
        ids = tokens.prompt_ids(prompt)
        self.prompt_length = len(ids)
        self._cache = read_prompt(model, ids)
        self.shared = self._cache is not None and self._agrees()

    def _agrees(self) -> bool:
        import torch

        ids = np.linspace(0, self._tokens.rows - 1, _TRIED_ROWS).astype(np.int64)
        expected = self._naively(ids)
        try:
            with torch.inference_mode():
                found = self._one_sequence(ids)
        except Exception:  # shapes that do not fit, crops that are not possible
            return False
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        # NaN must not send a whole table the slow way: the caller looks for it.
        bad = (found * expected).sum(axis=1) < _LEAST_COSINE * lengths
        return not bad.any()

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
        size = self._block if self.shared else NAIVE_BATCH
        make = self._one_sequence if self.shared else self._naively
        with torch.inference_mode():
            for first in range(0, len(ids), size):
                chosen = ids[first : first + size]
                made[first : first + len(chosen)] = make(chosen)
                if advance is not None:
                    advance(len(chosen))
        return made

    def _naively(self, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        return naive_rows(self._model, self._tokens, self._prompt, chosen)

    def _one_sequence(self, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        import torch

        device, prompt = self._model.device, self.prompt_length
        pairs = torch.full((len(chosen), 2), self._tokens.eos, dtype=torch.long, device=device)
        pairs[:, 0] = torch.from_numpy(chosen).to(device)
        positions = torch.tensor([prompt, prompt + 1], device=device).repeat(len(chosen))
        hidden = self._model.backbone(
            input_ids=pairs.view(1, -1),
            attention_mask=block_mask(
                prompt, len(chosen), getattr(torch, self._model.precision), device
            ),
            position_ids=positions[None],
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        self._cache.crop(-2 * len(chosen))
        rows: NDArray[np.float32] = hidden[0, 1::2].float().cpu().numpy()
        return rows


def naive_rows(
    model: CausalModel, tokens: CausalTokenizer, prompt: str, ids: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Rows made as the official code makes them: the prompt read with every token, ``[n, d]``."""
    import torch

    batch = torch.tensor([[*tokens.prompt_ids(prompt), 0, tokens.eos]]).repeat(len(ids), 1)
    batch[:, -2] = torch.from_numpy(ids)
    with torch.inference_mode():
        hidden = model.backbone(
            input_ids=batch.to(model.device), use_cache=False
        ).last_hidden_state
    rows: NDArray[np.float32] = hidden[:, -1].float().cpu().numpy()
    return rows


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
