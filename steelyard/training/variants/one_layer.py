"""Light queries through one layer of the model (LightRetriever's one-layer query encoder).

A query's blocks are read by the embedding layer, the first layer and the final norm, under the
same prompt and mask. The layer is the document tower's own, adapter included. Documents, and the
full queries that teach, go through all layers.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch

from steelyard.errors import InputError
from steelyard.training.towers import Rows, Towers


@dataclass(frozen=True, slots=True)
class OneLayerTowers(Towers):
    """Towers whose light queries see the first layer only."""

    def light(self, queries: Rows) -> torch.Tensor:
        """Light query vectors ``[n, d]``.

        Args:
            queries: token ids without prompt and specials.
        """
        short = replace(self, backbone=first_layers(self.backbone, 1))
        return Towers.light(short, queries)


def first_layers(backbone: Any, count: int) -> Any:
    """The same backbone with only its first layers; nothing is copied, all weights are shared.

    Args:
        backbone: a transformers model without its head, its layers at ``layers``.
        count: how many layers.

    Raises:
        InputError: the model has no such layers.
    """
    layers = getattr(backbone, "layers", None)
    if layers is None or not 1 <= count <= len(layers):
        raise InputError(
            f"the first {count} layers of a model with {0 if layers is None else len(layers)}",
            "give a model whose layers are at layers.N",
        )
    short = copy.copy(backbone)
    # The copy shares its table of parts with the original: it needs one of its own.
    object.__setattr__(short, "_modules", dict(backbone._modules))
    short.layers = torch.nn.ModuleList(layers[:count])
    return short
