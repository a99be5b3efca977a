"""A report as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
from pathlib import Path

from steelyard.errors import needs_extra
from steelyard.eval.report.content import Plot, Report

_TEMPLATE = "report.html.jinja"


def to_html(report: Report) -> str:
    """The page: no script, nothing fetched, everything escaped, plots as images inside."""
    with needs_extra("report"):
        import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.filters["address"] = _address
    return environment.get_template(_TEMPLATE).render(report=report)


def _address(plot: Plot) -> str:
    """A picture inside the page; as an image an SVG can neither run nor fetch anything."""
    return "data:image/svg+xml;base64," + base64.b64encode(plot.svg.encode()).decode()
