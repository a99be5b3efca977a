"""The recipe and what is left out of it, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from steelyard.errors import InputError
from steelyard.training.towers import Towers
from steelyard.training.variants.document_bag import DocumentBagTowers
from steelyard.training.variants.embedding_layer import EmbeddingLayerTowers, add_projection
from steelyard.training.variants.one_layer import OneLayerTowers

FULL, UNTRAINED, MRL = "full", "untrained", "mrl"


def _nothing(backbone: Any) -> None:
    del backbone


@dataclass(frozen=True, slots=True)
class Variant:
    """One change to the recipe.

    Attributes:
        name: by which it is asked for.
        about: in a line.
        kind: of the towers.
        loss: what it changes of ``LossSettings``.
        prepare: what it adds to the backbone, once the adapter is there.
        trained: False measures the model as it comes.
        mrl: train short vectors, too.
    """

    name: str
    about: str
    kind: type[Towers] = Towers
    loss: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[Any], None] = _nothing
    trained: bool = True
    mrl: bool = False

    def towers(self, towers: Towers) -> Towers:
        """The same towers with this change."""
        return self.kind(**{one.name: getattr(towers, one.name) for one in fields(Towers)})


VARIANTS = {
    one.name: one
    for one in (
        Variant(UNTRAINED, "the model as it comes", trained=False),
        Variant(FULL, "the whole recipe"),
        Variant("document-bag", "A1: documents are bags, too", DocumentBagTowers),
        Variant(
            "embedding-layer",
            "A2: light queries of the raw embedding layer",
            EmbeddingLayerTowers,
            prepare=add_projection,
        ),
        Variant("one-layer", "light queries through one layer", OneLayerTowers),
        Variant("no-kl", "without the KL terms", loss={"kl_dense": 0.0, "kl_sparse": 0.0}),
        Variant("no-flops", "without the FLOPS regulariser", loss={"flops": 0.0}),
        Variant(MRL, "short vectors are trained, too", mrl=True),
    )
}
"""In the order of the tables."""


def parse_variants(text: str) -> list[Variant]:
    """Variants by comma-separated names, each once; the whole recipe comes in any case.

    Raises:
        InputError: an unknown name, or none.
    """
    names = [name for part in text.split(",") if (name := part.strip())]
    unknown = [name for name in names if name not in VARIANTS]
    if unknown or not names:
        raise InputError(
            f"unknown variant {unknown[0]!r}" if unknown else "no variant",
            f"choose from {', '.join(VARIANTS)}",
        )
    return [one for one in VARIANTS.values() if one.name in {FULL, *names}]
