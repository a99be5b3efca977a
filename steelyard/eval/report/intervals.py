"""How sure a mean is, before anything is compared: bootstrap over queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from steelyard.eval.results import MEASURES, SystemRow

RESAMPLES = 10_000
_SEED = 0
_BLOCK = 1_000
LEVEL = 95


def mean_intervals(row: SystemRow) -> Mapping[str, tuple[float, float]]:
    """Percentile bootstrap interval, 95 %, of each mean whose values by query are there.

    The resamples are the same for every system and measure of as many queries.
    """
    values = {name: row.by_query[name] for name in MEASURES if row.by_query.get(name)}
    if not values:
        return {}
    ends = _percentiles(list(values.values()))
    return {name: (low, high) for name, (low, high) in zip(values, ends, strict=True)}


def _percentiles(values: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    columns = np.array(values).T
    queries = len(columns)
    draws = np.random.default_rng(_SEED)
    means = np.concatenate(
        [
            draws.multinomial(queries, np.full(queries, 1 / queries), size=_BLOCK) @ columns
            for _ in range(RESAMPLES // _BLOCK)
        ]
    )
    rest = (100 - LEVEL) / 2
    low, high = np.percentile(means / queries, [rest, 100 - rest], axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))
