"""A prompt's keys and values, read once, where the texts that begin with it are many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.causal.model import CausalModel
from steelyard.encoders.causal.tokens import padded

if TYPE_CHECKING:
    import torch

PROBE_TOKENS = 4
"""A prompt is tried with texts of at most so many tokens after it."""

_LEAST_SHARED = 4
_MOST_APART = 0.3


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


class PromptCache:
    """Last hidden states of texts that begin with a prompt, which is read once.

    Only the tokens that all texts of a batch have in common with the prompt are shared: a
    tokenizer may join the prompt's last character with the text's first. A model that cannot go
    on from keys and values (recurrent layers) reads all texts whole.

    Args:
        model: the model; its weights stay as they are.
        prompt: token ids of bos and the prompt, tokenised by itself.
        eos: stands after a text, where causal attention never looks.

    Attributes:
        shared: whether the model goes on from a prompt that was read before.
    """

    def __init__(self, model: CausalModel, prompt: Sequence[int], eos: int) -> None:
        self._model, self._eos = model, eos
        self._prompt = np.asarray(prompt, dtype=np.int64)
        self._read = read_prompt(model, prompt) if len(prompt) >= _LEAST_SHARED else None
        self.shared = self._read is not None and self._works()

    def last_states(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Hidden states at the last token of each of n texts, ``[n, hidden size]``.

        Args:
            rows: token ids of n texts, n > 0, none empty.
        """
        ids, lengths = padded(rows, self._eos), _lengths(rows)
        begun = self._in_common(ids, int(lengths.min())) if self.shared else 0
        return self._states(ids, lengths, begun if begun >= _LEAST_SHARED else 0)

    def _in_common(self, ids: NDArray[np.int64], shortest: int) -> int:
        """Tokens that all texts have in common with the prompt; at least one is left of each."""
        most = min(len(self._prompt), shortest - 1)
        same = (ids[:, :most] == self._prompt[:most]).all(axis=0)
        return most if same.all() else int(same.argmin())

    def _states(
        self, ids: NDArray[np.int64], lengths: NDArray[np.int64], begun: int
    ) -> torch.Tensor:
        """Of padded texts, whose first ``begun`` tokens are the prompt's."""
        import torch

        from steelyard.encoders.causal.continued_cache import ContinuedCache

        # No mask: the padding comes after the text, where causal attention never looks.
        hidden = self._model.backbone(
            input_ids=torch.from_numpy(ids[:, begun:]).to(self._model.device),
            past_key_values=ContinuedCache(self._read, begun) if begun else None,
            use_cache=begun > 0,
        ).last_hidden_state
        place = torch.arange(len(ids), device=hidden.device)
        last = torch.from_numpy(lengths - begun - 1).to(hidden.device)
        states: torch.Tensor = hidden[place, last]
        return states

    def _works(self) -> bool:
        """Begun texts must be as they are whole, far nearer than without what was read.

        Tried with the whole prompt and without its last token, and with one token and more.
        """
        import torch

        prompt = self._prompt.tolist()
        some = prompt[len(prompt) // 2]
        tried = ([some], [*prompt[1:PROBE_TOKENS], some])
        try:
            with torch.inference_mode():
                for begun in (len(prompt), len(prompt) - 1):
                    rows = [[*prompt[:begun], *text] for text in tried]
                    ids, lengths = padded(rows, self._eos), _lengths(rows)
                    whole = self._states(ids, lengths, 0).float()
                    found = self._states(ids, lengths, begun).float()
                    without = self._states(ids[:, begun:], lengths - begun, 0).float()
                    apart, alone = (found - whole).norm(dim=1), (without - whole).norm(dim=1)
                    if not bool((apart < _MOST_APART * alone).all()):
                        return False
        except Exception:  # shapes that do not fit, layers that keep other things
            return False
        return True


def _lengths(rows: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    return np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
