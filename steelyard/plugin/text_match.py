"""How the engine's own BM25 reads texts and weighs titles."""

from __future__ import annotations

import math
from dataclasses import dataclass

from steelyard.errors import InputError


@dataclass(frozen=True, slots=True)
class TextMatch:
    """Settings of the ``match`` arm.

    Attributes:
        title_boost: what a score of the title is multiplied by; read when searching.
        analyzer: what makes words of texts, in the engine's own naming; fixed when a generation
            is created. ``standard`` suits every language, ``english`` also stems.
    """

    title_boost: float = 2.0
    analyzer: str = "standard"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.title_boost) and self.title_boost > 0):
            raise InputError(f"a title boost of {self.title_boost}", "give a number above 0")
