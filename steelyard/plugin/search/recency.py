"""Newer documents first, other things being equal: a decay by age, after fusion."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from steelyard.errors import InputError
from steelyard.plugin.engine import Candidates, Generation, StoredDocument, best_first


@dataclass(frozen=True, slots=True)
class Recency:
    """The fused score times ``1 - weight + weight x 0.5 ^ (age / half_life)``.

    A document without a date, or with one to come, keeps its score.

    Attributes:
        field: declared metadata field of type int or float: seconds since 1970.
        half_life: days after which half of the weighted part is left.
        weight: how much of a score age can take, 0 to 1.
        now: seconds since 1970; None is the clock.
        window: so many of the best fused candidates are decayed and put in order anew; those
            below them stay below.
    """

    field: str
    half_life: float
    weight: float = 0.5
    now: float | None = None
    window: int = 200

    def __post_init__(self) -> None:
        if not (0 < self.half_life < math.inf and 0 <= self.weight <= 1 and self.window > 0):
            raise InputError(
                f"a recency of half-life {self.half_life} days, weight {self.weight}, window "
                f"{self.window}",
                "half-life and window are more than 0, the weight is from 0 to 1",
            )

    def check(self, generation: Generation) -> None:
        """Refuse a field that the index has not, or that is no number."""
        kind = generation.fields.get(self.field)
        if kind not in ("int", "float"):
            raise InputError(
                f"recency by {self.field!r}, which is "
                + ("no declared metadata field" if kind is None else f"of type {kind}"),
                "declare it as int or float: seconds since 1970",
            )

    def factors(self, ids: list[str], stored: Mapping[str, StoredDocument]) -> dict[str, float]:
        """What each score is multiplied by; 1 for documents without a date."""
        now = time.time() if self.now is None else self.now
        factors = {}
        for identifier in ids:
            found = stored.get(identifier)
            when = None if found is None else found.document.metadata.get(self.field)
            days = 0.0 if when is None else max(0.0, (now - float(when)) / 86_400)
            factors[identifier] = 1 - self.weight + self.weight * 0.5 ** (days / self.half_life)
        return factors


def decayed(fused: Candidates, factors: Mapping[str, float]) -> Candidates:
    """The first candidates, those with a factor, in their new order; the others follow."""
    count = len(factors)
    scores = fused.scores[:count] * np.array([factors[i] for i in fused.ids[:count]])
    best = best_first(fused.ids[:count], scores, count)
    ids = [*best.ids, *fused.ids[count:]]
    return Candidates(ids, np.concatenate([best.scores, fused.scores[count:]]))
