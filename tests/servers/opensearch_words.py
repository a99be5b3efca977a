"""What tests of the OpenSearch engine share: a vocabulary, and how rankings are compared."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from steelyard.plugin.engine import Candidates, Engine
from steelyard.plugin.vocabulary import Vocabulary

Opener = Callable[[Vocabulary | None], Engine]
"""Opens the test's alias with a vocabulary."""

FLOAT32 = 2e-6
"""Impacts up to 512 are exact in rank_features, so that sums differ by float32's rounding only."""


class Words:
    """A vocabulary of fifty, whose first strings are awkward as keys."""

    texts = ("", ".", " ", "a.b", "Ġx", "..", '"', "\\", "é🙂", *(f"t{i}" for i in range(9, 50)))

    def id_to_token(self, id: int, /) -> str | None:
        return self.texts[id] if id < len(self.texts) else None

    def token_to_id(self, token: str, /) -> int | None:
        return self.texts.index(token) if token in self.texts else None


def agree(found: Candidates, expected: Candidates, tolerance: float) -> float:
    """The same documents and scores, so the same ranking but for ties; the largest difference."""
    wanted = dict(zip(expected.ids, expected.scores.tolist(), strict=True))
    assert set(found.ids) == set(wanted)
    in_order = np.array([wanted[i] for i in found.ids])
    assert (np.diff(in_order) <= 2 * tolerance).all()
    difference = float(np.abs(found.scores - in_order).max(initial=0.0))
    assert difference <= tolerance
    return difference
