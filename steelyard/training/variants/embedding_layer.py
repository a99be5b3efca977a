"""Light queries out of the raw embedding layer (LightRetriever, ablation A2).

A query is the mean of its tokens' rows of the model's embedding layer: no layer reads them, no
prompt is seen. Something on the query side must learn, or training could not bring the two spaces
together. The rows themselves are the document tower's input and often its LM head, so they stay;
one linear map, the identity at first, takes their mean to the documents' space. All tokens share
it, so few steps teach it. What the paper trains on that side is not published.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import embedding_bag, normalize

from steelyard.errors import InputError
from steelyard.training.towers import Rows, Towers

_NAME = "light_projection"


@dataclass(frozen=True, slots=True)
class EmbeddingLayerTowers(Towers):
    """Towers whose light queries are made without any layer of the model."""

    def light(self, queries: Rows) -> torch.Tensor:
        """Light query vectors ``[n, d]``.

        Args:
            queries: token ids without prompt and specials.
        """
        kept = [[token for token in query if token != self.pad] for query in queries]
        if not kept:
            raise InputError("a batch without queries", "leave it out")
        flat = torch.tensor([token for row in kept for token in row], dtype=torch.long)
        starts = np.concatenate([[0], np.cumsum([len(row) for row in kept])[:-1]])
        rows = self.backbone.get_input_embeddings().weight.detach()
        used = rows[flat.to(rows.device)]
        used = used if used.dtype == torch.float64 else used.float()
        means = embedding_bag(
            torch.arange(len(used), device=used.device),
            used,
            torch.from_numpy(starts).to(used.device),
            mode="mean",
        )
        # Half precision is too coarse for the one thing that a query goes through.
        with torch.autocast(means.device.type, enabled=False):
            return normalize(projection_of(self.backbone)(means), dim=1)


def add_projection(backbone: Any) -> None:
    """Give a backbone the linear map, in place, so that it learns with whatever else does.

    Args:
        backbone: a transformers model without its head; called after its adapter was put in,
            which would freeze the map.
    """
    rows = backbone.get_input_embeddings().weight
    dtype = torch.float64 if rows.dtype == torch.float64 else torch.float32
    # Made on no device, so that nothing is drawn: dropout is then the other variants' own.
    layer = torch.nn.Linear(
        rows.shape[1], rows.shape[1], bias=False, dtype=dtype, device="meta"
    ).to_empty(device=rows.device)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(rows.shape[1]))
    backbone.add_module(_NAME, layer)


def projection_of(backbone: Any) -> Any:
    """The linear map of a backbone.

    Raises:
        InputError: it has none.
    """
    found = getattr(backbone, _NAME, None)
    if found is None:
        raise InputError(
            "the backbone has no map from its embedding layer to the documents",
            "call add_projection after the adapter was put in",
        )
    return found
