"""Joining the arms' rankings into one.

``min-max``: each arm's scores are brought to 0..1 over that arm's own candidates of the query,
(s - min) / (max - min + 1e-8), and summed with weights .7 dense, .3 sparse (LightRetriever); a
document that an arm did not return gets 0 from it. ``rrf``: sum of 1 / (60 + rank).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.pack.metadata import FusionDefaults
from steelyard.errors import InputError
from steelyard.plugin.engine import DENSE, MATCH, SPARSE, Candidates, best_first

METHODS = ("min-max", "rrf")
_EPSILON = 1e-8


@dataclass(frozen=True, slots=True)
class Fusion:
    """How arms are joined.

    Attributes:
        method: ``min-max`` or ``rrf``.
        weights: of the dense and the sparse arm; ``rrf`` does not use them.
        match: of the engine's own BM25, where that takes part.
        rrf_k: the constant of RRF.
    """

    method: str = "min-max"
    weights: tuple[float, ...] = (0.7, 0.3)
    rrf_k: int = 60
    match: float = 0.3

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(
                f"unknown fusion {self.method!r}", f"choose one of {', '.join(METHODS)}"
            )

    @classmethod
    def of_pack(cls, defaults: FusionDefaults, method: str | None = None) -> Fusion:
        """A pack's own fusion, or another method with the pack's weights."""
        weights = (defaults.dense_weight, defaults.sparse_weight)
        return cls(method or defaults.method, weights, defaults.rrf_k)

    def weight(self, arm: str) -> float:
        """What the best document of an arm gets from it."""
        return {DENSE: self.weights[0], SPARSE: self.weights[-1], MATCH: self.match}[arm]


def fuse_arms(arms: Mapping[str, Candidates], fusion: Fusion, k: int | None = None) -> Candidates:
    """One query's candidates by name of the arm, fused: see ``fuse``."""
    weights = tuple(fusion.weight(arm) for arm in arms)
    return fuse(list(arms.values()), replace(fusion, weights=weights), k)


def fuse(arms: Sequence[Candidates], fusion: Fusion, k: int | None = None) -> Candidates:
    """One ranking of the union of the arms' candidates, ties by id.

    Args:
        arms: one query's candidates, in the order of ``fusion.weights``.
        fusion: the method.
        k: keep so many; None keeps the union.
    """
    totals: dict[str, float] = {}
    for arm, weight in zip(arms, fusion.weights, strict=True):
        gained = contributions(arm.scores, fusion, weight).tolist()
        if not totals:
            totals = dict(zip(arm.ids, gained, strict=True))
            continue
        so_far = totals.get
        for identifier, gain in zip(arm.ids, gained, strict=True):
            totals[identifier] = so_far(identifier, 0.0) + gain
    scores = np.fromiter(totals.values(), dtype=np.float64, count=len(totals))
    return best_first(list(totals), scores, len(totals) if k is None else k)


def contributions(
    scores: NDArray[np.float64], fusion: Fusion, weight: float
) -> NDArray[np.float64]:
    """What an arm's candidates, best first, get from it.

    Args:
        scores: of the arm ``[n]``.
        fusion: the method.
        weight: of the arm.
    """
    if not len(scores):
        return scores
    if fusion.method == "rrf":
        return 1 / (fusion.rrf_k + 1 + np.arange(len(scores), dtype=np.float64))
    low, high = scores.min(), scores.max()
    scaled: NDArray[np.float64] = (scores - low) / (high - low + _EPSILON)
    return weight * scaled
