"""Query by query: where a system is better than the baseline, and where worse."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from steelyard.eval.report.content import Plot, plain
from steelyard.eval.report.drawing import BETTER, GREY, WORSE, draw, short
from steelyard.eval.results import CollectionResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MEASURE = "ndcg@10"
_COLUMNS = 3
_TIE = 2e-6
"""Results are rounded to six decimals."""


def queries_plot(collection: CollectionResult, name: str) -> Plot | None:
    """Sorted differences of nDCG@10, a panel a system; None without values of each query.

    Args:
        collection: the results.
        name: of the plot's file.
    """
    differences = sorted_differences(collection)
    if not differences:
        return None
    columns = min(_COLUMNS, len(differences))
    rows = math.ceil(len(differences) / columns)

    def paint(figure: Figure) -> None:
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
        for panel, (system, values) in zip(panels, differences.items(), strict=False):
            for side, of in ((BETTER, values.clip(min=0)), (WORSE, values.clip(max=0))):
                levels, edges = _steps(of)
                panel.stairs(levels, edges, fill=True, color=side)
            panel.axhline(0, color=GREY, linewidth=0.8)
            wins, ties, losses = _counts(values)
            panel.set_title(
                f"{short(plain(system))}\n{wins} better, {ties} equal, {losses} worse",
                fontsize=9,
                loc="left",
            )
            panel.set_ylim(-1.05, 1.05)
        for panel in list(panels)[len(differences) :]:
            panel.set_visible(False)
        figure.supxlabel("queries, sorted by the difference", fontsize=10)
        figure.supylabel(f"nDCG@10 less that of {short(plain(collection.baseline))}", fontsize=10)

    said = []
    for system, values in differences.items():
        wins, ties, losses = _counts(values)
        said.append(f"{plain(system)}: {wins} better, {ties} equal, {losses} worse")
    baseline = plain(collection.baseline)
    return Plot(
        name,
        f"Wins and losses against {baseline}, query by query",
        f"Queries on which each system differs from {baseline}. {'; '.join(said)}.",
        draw(paint, 2.2 + 2.0 * columns, 0.8 + 1.7 * rows),
    )


def sorted_differences(collection: CollectionResult) -> dict[str, NDArray[np.float64]]:
    """Of each system but the baseline: its nDCG@10 less the baseline's, best first."""
    rows = {row.system: row.by_query.get(_MEASURE) for row in collection.rows}
    baseline = rows.pop(collection.baseline, None)
    if not baseline:
        return {}
    return {
        system: np.sort(np.asarray(values) - np.asarray(baseline))[::-1]
        for system, values in rows.items()
        if values
    }


def _steps(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Runs of equal values, to a hundredth: each run's value, and where runs begin and end.

    That is finer than a panel's pixels, and thousands of queries still make a small picture.
    """
    values = values.round(2)
    starts = np.flatnonzero(np.diff(values, prepend=np.inf))
    return values[starts], np.append(starts, len(values))


def _counts(values: NDArray[np.float64]) -> tuple[int, int, int]:
    wins, losses = int((values > _TIE).sum()), int((values < -_TIE).sum())
    return wins, len(values) - wins - losses, losses
