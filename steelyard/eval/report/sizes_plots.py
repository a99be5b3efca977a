"""Quality against size: of the index, and of the query side's table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steelyard.eval.report.content import Plot, plain
from steelyard.eval.report.drawing import GREY, colour, draw, marker
from steelyard.eval.sweeps.results import SizePoint, SizesResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def index_plot(sizes: SizesResult) -> Plot:
    """Fused nDCG@10 against the index: a panel a table type, a line for each dims."""
    dtypes, dims, terms = (
        list(dict.fromkeys(getattr(point, name) for point in sizes.points))
        for name in ("dtype", "dims", "max_terms")
    )

    def paint(figure: Figure) -> None:
        from matplotlib.lines import Line2D

        panels = figure.subplots(1, len(dtypes), sharex=True, sharey=True, squeeze=False)[0]
        for panel, dtype in zip(panels, dtypes, strict=True):
            for at, few in enumerate(dims):
                points = [p for p in sizes.points if p.dtype == dtype and p.dims == few]
                panel.plot(
                    [p.index_bytes / 1e6 for p in points],
                    [p.fused.ndcg10 for p in points],
                    color=colour(at),
                    linewidth=1.2,
                )
                for p in points:
                    panel.plot(
                        p.index_bytes / 1e6,
                        p.fused.ndcg10,
                        marker(terms.index(p.max_terms)),
                        color=colour(at),
                    )
            panel.set_title(f"{plain(dtype)} table", fontsize=10, loc="left")
            panel.set_xlim(left=0)
            panel.set_xlabel("index, MB")
        figure.supylabel("nDCG@10, look-up and sparse fused", fontsize=10)
        keys = [
            Line2D([], [], color=colour(at), label=f"{few} dimensions")
            for at, few in enumerate(dims)
        ]
        keys += [
            Line2D([], [], color=GREY, linestyle="", marker=marker(at), label=_terms(count))
            for at, count in enumerate(terms)
        ]
        figure.legend(handles=keys, loc="outside lower center", ncols=4)

    best = max(sizes.points, key=lambda point: point.fused.ndcg10)
    least = min(sizes.points, key=lambda point: point.index_bytes)
    return Plot(
        "sizes",
        "Quality against index size",
        f"Fused nDCG@10 on {plain(sizes.collection)} by the size of the index; smallest and best: "
        f"{_said(least)}, {_said(best)}.",
        draw(paint, 2.2 + 2.4 * len(dtypes), 4.2),
    )


def table_plot(sizes: SizesResult) -> Plot:
    """Look-up alone against the table's size: a line for each table type."""
    lines: dict[str, dict[int, SizePoint]] = {}
    for point in sizes.points:
        lines.setdefault(point.dtype, {})[point.dims] = point

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for at, (dtype, points) in enumerate(lines.items()):
            axes.plot(
                [point.table_bytes / 1e6 for point in points.values()],
                [point.lookup.ndcg10 for point in points.values()],
                color=colour(at),
                marker=marker(at),
                label=plain(dtype),
            )
            for dims, point in points.items():
                axes.annotate(
                    str(dims),
                    (point.table_bytes / 1e6, point.lookup.ndcg10),
                    xytext=(-3, 5),
                    ha="right",
                    textcoords="offset points",
                    fontsize=8,
                    color=GREY,
                )
        axes.set_xlim(left=0)
        axes.set_xlabel("table, MB; the numbers are dimensions")
        axes.set_ylabel("nDCG@10, look-up alone")
        figure.legend(loc="outside lower center", ncols=3)

    said = [
        f"{plain(dtype)}, {dims} dimensions, {point.table_bytes / 1e6:.1f} MB: "
        f"{point.lookup.ndcg10:.4f}"
        for dtype, points in lines.items()
        for dims, point in points.items()
    ]
    return Plot(
        "tables",
        "Quality against the table's size",
        "nDCG@10 of the look-up alone. " + "; ".join(said) + ".",
        draw(paint, 6, 3.8),
    )


def unbeaten(points: list[SizePoint]) -> set[int]:
    """Places of the points that no other beats: none is as small and as good, and not the same.

    Size is index and table together, quality the fused nDCG@10.
    """
    order = sorted(
        range(len(points)),
        key=lambda at: (_size(points[at]), -points[at].fused.ndcg10),
    )
    kept: set[int] = set()
    best = float("-inf")
    for at in order:
        if points[at].fused.ndcg10 > best:
            best = points[at].fused.ndcg10
            kept.add(at)
    return kept


def _size(point: SizePoint) -> int:
    return point.index_bytes + point.table_bytes


def _terms(count: int | None) -> str:
    return "all terms" if count is None else f"{count} terms"


def _said(point: SizePoint) -> str:
    return (
        f"{point.dims} dimensions and {_terms(point.max_terms)} take "
        f"{point.index_bytes / 1e6:.1f} MB and reach {point.fused.ndcg10:.4f}"
    )
