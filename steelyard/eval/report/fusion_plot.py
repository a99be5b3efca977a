"""Quality against the dense arm's weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steelyard.eval.report.content import Plot, plain
from steelyard.eval.report.drawing import GREY, colour, draw, marker
from steelyard.eval.sweeps.results import FusionPoint, FusionResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def curves(fusion: FusionResult) -> dict[str, list[FusionPoint]]:
    """The weighted points of each dense arm, by weight."""
    found: dict[str, list[FusionPoint]] = {}
    for point in fusion.points:
        if point.dense_weight is not None:
            found.setdefault(point.dense, []).append(point)
    return {
        name: sorted(points, key=lambda point: point.dense_weight or 0)
        for name, points in found.items()
    }


def fusion_plot(fusion: FusionResult) -> Plot:
    """A line for each dense arm, RRF beside it as a level line, the pack's weight marked."""
    lines = curves(fusion)
    ranks = {point.dense: point for point in fusion.points if point.method == "rrf"}

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for at, (dense, points) in enumerate(lines.items()):
            name = plain(f"{dense}+{fusion.sparse}")
            axes.plot(
                [point.dense_weight or 0 for point in points],
                [point.fused.ndcg10 for point in points],
                color=colour(at),
                marker=marker(at),
                markersize=4,
                label=name,
            )
            if dense in ranks:
                axes.axhline(
                    ranks[dense].fused.ndcg10,
                    color=colour(at),
                    linestyle="--",
                    linewidth=1,
                    label=f"{name}, RRF",
                )
        axes.axvline(fusion.dense_weight, color=GREY, linestyle=":", label="the pack's weight")
        axes.set_xlabel("weight of the dense arm; the sparse arm has the rest")
        axes.set_ylabel("nDCG@10")
        figure.legend(loc="outside lower center", ncols=3)

    said = []
    for dense, points in lines.items():
        best = max(points, key=lambda point: point.fused.ndcg10)
        said.append(
            f"{plain(dense)}: {points[0].fused.ndcg10:.4f} at {points[0].dense_weight:g}, at most "
            f"{best.fused.ndcg10:.4f} at {best.dense_weight:g}, {points[-1].fused.ndcg10:.4f} at "
            f"{points[-1].dense_weight:g}"
        )
    return Plot(
        "fusion",
        "Quality against the dense arm's weight",
        f"nDCG@10 on {plain(fusion.collection)} by the weight of the dense arm. "
        + "; ".join(said)
        + ".",
        draw(paint, 6.5, 4.2),
    )
