"""Plots as SVG: the same input gives the same bytes, whatever matplotlib is set to elsewhere."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from steelyard.errors import needs_extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's, told apart by the colour-blind too."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":")
BETTER, WORSE, GREY = COLOURS[0], COLOURS[1], "#767676"

_STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "white",
    "font.size": 10.0,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "steelyard",
    "text.parse_math": False,  # a name may hold dollars
}
_LONGEST = 32


def draw(paint: Callable[[Figure], None], width: float, height: float) -> str:
    """A figure as SVG.

    Args:
        paint: fills it.
        width, height: in inches.
    """
    with needs_extra("report"):
        from matplotlib import rc_context, rcdefaults, rcParams
        from matplotlib.figure import Figure

    stream = io.StringIO()
    with rc_context(), warnings.catch_warnings():
        # Names may be in scripts that matplotlib's own font lacks; the reader's fonts draw them.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        rcdefaults()
        cast(Any, rcParams).update(_STYLE)
        figure = Figure(figsize=(width, height), layout="constrained")
        paint(figure)
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def short(name: str) -> str:
    """A name that fits beside an axis."""
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def colour(position: int) -> str:
    """Of a series; they come round again."""
    return COLOURS[position % len(COLOURS)]


def marker(position: int) -> str:
    """Of a series; these too."""
    return MARKERS[position % len(MARKERS)]


def line(position: int) -> str:
    """Of a series, where the colours have come round."""
    return LINES[position // len(COLOURS) % len(LINES)]
