"""Documents as bags of tokens, too (LightRetriever, ablation A1, "symmetric").

A document's dense vector is made as a light query's is: the mean over its tokens of a block's
hidden state at eos. It has no prompt, as no document has: a block sees bos and itself. So token
order is lost on both sides. Sparse vectors and full queries are those of the whole recipe.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from steelyard.training.towers import Rows, Towers


@dataclass(frozen=True, slots=True)
class DocumentBagTowers(Towers):
    """Towers whose dense document vectors know no order of tokens."""

    def documents(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """Both arms of n documents: the sparse one takes a forward pass of its own.

        Args:
            rows: ``bos A eos``.

        Returns:
            Dense ``[n, d]`` unit rows, zeros for a document without tokens; sparse ``[n, V]``.
        """
        _, weights = Towers.documents(self, rows)
        unprompted = replace(self, prompt_ids=self.prompt_ids[:1])
        dense = Towers.light(unprompted, [row[1:-1] for row in rows])
        return dense, weights
