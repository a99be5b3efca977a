"""How much of the full model's quality each system keeps, collection by collection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from steelyard.eval.report.content import Plot, plain
from steelyard.eval.report.drawing import GREY, colour, draw, marker, short
from steelyard.eval.results import CollectionResult, SystemRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SAID = 12


def retention_plot(collections: Sequence[CollectionResult]) -> Plot | None:
    """Dots with intervals; None where no system has a counterpart with the full model."""
    kept = [(each, _kept(each)) for each in collections]
    kept = [(each, rows) for each, rows in kept if rows]
    if not kept:
        return None
    systems = list(dict.fromkeys(row.system for _, rows in kept for row in rows))

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axvline(100, color=GREY, linestyle="--", linewidth=1)
        named: set[str] = set()
        for place, (_, rows) in enumerate(kept):
            for row in rows:
                at = systems.index(row.system)
                share = 100 * (row.retention or 0)
                low = share if row.retention_low is None else 100 * row.retention_low
                high = share if row.retention_high is None else 100 * row.retention_high
                axes.errorbar(
                    share,
                    place + 0.7 * ((at + 0.5) / len(systems) - 0.5),
                    xerr=[[max(share - low, 0)], [max(high - share, 0)]],
                    fmt=marker(at),
                    color=colour(at),
                    capsize=3,
                    label=short(plain(row.system)) if row.system not in named else None,
                )
                named.add(row.system)
        axes.set_yticks(range(len(kept)), [short(plain(each.collection)) for each, _ in kept])
        axes.set_ylim(len(kept) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("nDCG@10 in % of the same system with the full model")
        figure.legend(loc="outside lower center", ncols=3)

    said = [
        f"{plain(row.system)} keeps {100 * (row.retention or 0):.1f} % on {plain(each.collection)}"
        for each, rows in kept
        for row in rows
    ]
    more = f"; and {len(said) - _SAID} more" if len(said) > _SAID else ""
    height = 1.4 + len(kept) * (0.3 + 0.22 * len(systems)) + 0.2 * (len(systems) + 2) // 3
    return Plot(
        "retention",
        "Retention of each collection",
        "; ".join(said[:_SAID]) + more + ".",
        draw(paint, 7, height),
    )


def _kept(collection: CollectionResult) -> list[SystemRow]:
    return [row for row in collection.rows if row.retention is not None]
