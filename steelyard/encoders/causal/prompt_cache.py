"""A prompt's keys and values, read once, where the texts that begin with it are many."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.causal.model import CausalModel

if TYPE_CHECKING:
    import torch

_LEAST_COSINE = 0.99
_LEAST_SHARED = 4


def read_prompt(model: CausalModel, ids: Sequence[int]) -> Any:
    """Keys and values of a prompt's n tokens; None where the model keeps other things."""
    import torch
    from transformers import DynamicCache

    try:
        # A plain cache: one made for the model would drop what slides out of a window.
        cache = DynamicCache()
        with torch.inference_mode():
            model.backbone(
                input_ids=torch.tensor([list(ids)], device=model.device),
                past_key_values=cache,
                use_cache=True,
            )
    except Exception:  # whatever a family without such a cache makes of it
        return None
    return cache if cache.get_seq_length() == len(ids) else None


def agree(found: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    """Whether rows ``[n, d]`` of two ways point the same way, but for rounding.

    NaN counts as agreement: it must not send all texts the slow way, and is found elsewhere.
    """
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    bad = (found * expected).sum(axis=1) < _LEAST_COSINE * lengths
    return not bad.any()


class PromptCache:
    """Last hidden states of texts that begin with a prompt, which is read once.

    Only the tokens that all texts of a batch have in common with the prompt are shared: a
    tokenizer may join the prompt's last character with the text's first. A model that cannot go
    on from keys and values (recurrent layers) reads all texts whole.

    Args:
        model: the model.
        prompt: token ids of bos and the prompt, tokenised by itself.
        eos: stands after a text, where causal attention never looks.
    """

    def __init__(self, model: CausalModel, prompt: Sequence[int], eos: int) -> None:
        self._model, self._eos = model, eos
        self._prompt = np.asarray(prompt, dtype=np.int64)
        self._cache: Any = read_prompt(model, prompt) if len(prompt) >= _LEAST_SHARED else None
        if self._cache is not None and not self._works():
            self._cache = None

    @property
    def shared(self) -> bool:
        """Whether the model can go on from a prompt that was read before."""
        return self._cache is not None

    def last_states(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Hidden states at the last token of each of n texts, ``[n, hidden size]``.

        Args:
            rows: token ids of n texts, n > 0, none empty.
        """
        import torch

        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        ids = np.full((len(rows), lengths.max()), self._eos, dtype=np.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
        begun = 0 if self._cache is None else self._in_common(ids, int(lengths.min()))
        cache = None
        if begun >= _LEAST_SHARED:
            cache = copy.deepcopy(self._cache)
            if begun < len(self._prompt):
                cache.crop(begun - len(self._prompt))
            cache.batch_repeat_interleave(len(rows))
            ids, lengths = ids[:, begun:], lengths - begun
        # No mask: the padding comes after the text, where causal attention never looks.
        hidden = self._model.backbone(
            input_ids=torch.from_numpy(ids).to(self._model.device),
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state
        place = torch.arange(len(rows), device=hidden.device)
        last = torch.from_numpy(lengths - 1).to(hidden.device)
        states: torch.Tensor = hidden[place, last]
        return states

    def _in_common(self, ids: NDArray[np.int64], shortest: int) -> int:
        """Tokens that all texts have in common with the prompt; at least one is left of each."""
        most = min(len(self._prompt), shortest - 1)
        same = (ids[:, :most] == self._prompt[:most]).all(axis=0)
        return most if same.all() else int(same.argmin())

    def _works(self) -> bool:
        """Texts of two lengths, begun and whole."""
        import torch

        first, some = self._prompt.tolist(), int(self._prompt[-1])
        rows = [[*first, some, self._eos], [*first, some, some, some, self._eos]]
        cache = self._cache
        try:
            with torch.inference_mode():
                found = self.last_states(rows).float().cpu().numpy()
        except Exception:  # shapes that do not fit, crops that are not possible
            return False
        self._cache = None
        with torch.inference_mode():
            expected = self.last_states(rows).float().cpu().numpy()
        self._cache = cache
        return agree(found, expected)
