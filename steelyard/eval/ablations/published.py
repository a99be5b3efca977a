"""What the paper found (LightRetriever, section 1): nDCG@10 on BEIR, other models and budgets.

Only the direction can be compared with a small run here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Published:
    """One published ablation.

    Attributes:
        system: what was measured, by our name.
        without: nDCG@10 of the variant.
        whole: of the whole recipe.
    """

    system: str
    without: float
    whole: float


PUBLISHED = {
    "document-bag": Published("lookup", 34.9, 48.7),
    "embedding-layer": Published("lookup", 37.5, 48.7),
    "one-layer": Published("lookup+lm-head", 50.1, 54.4),
    "no-kl": Published("lookup+lm-head", 53.9, 54.4),
}
"""By variant; there is no figure without FLOPS."""

PUBLISHED_SIZES = {128: 49.3, 256: 51.6, 512: 53.0, 1024: 53.1, 4096: 54.4}
"""nDCG@10 of ``lookup+lm-head`` by MRL dims = terms a document."""
