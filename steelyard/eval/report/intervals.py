"""How sure a mean is, before anything is compared: bootstrap over queries."""

from __future__ import annotations

import numpy as np

from steelyard.eval.results import SystemRow
from steelyard.eval.significance import SignificanceSettings, resampled_means

SETTINGS = SignificanceSettings()
_OUTSIDE = (1 - SETTINGS.confidence) / 2


def mean_intervals(row: SystemRow) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap interval, 95 %, of each mean whose values by query are there.

    The resamples are the same for every system and measure of as many queries.
    """
    there = {name: values for name, values in row.by_query.items() if values}
    if not there:
        return {}
    means = resampled_means(np.array(list(there.values())).T, SETTINGS)
    low, high = np.quantile(means, [_OUTSIDE, 1 - _OUTSIDE], axis=0)
    return {name: (float(low[column]), float(high[column])) for column, name in enumerate(there)}
