"""Documents as bags of tokens, too (LightRetriever, ablation A1, "symmetric").

A document's dense vector is made as a light query's is: the mean over its tokens of a block's
hidden state at eos. It has no prompt, as no document has: a block sees bos and itself. So token
order is lost on both sides. Sparse vectors and full queries are those of the whole recipe.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from steelyard.training.query_blocks import light_queries
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
        dense = light_queries(
            self.backbone,
            [row[1:-1] for row in rows],
            self.prompt_ids[:1],
            self.eos,
            pad=self.pad,
            dtype=self.head.weight.dtype,
            device=self.device,
            share=self.share_blocks,
        )
        return dense, weights
