"""A report into files."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from steelyard.errors import InputError
from steelyard.eval.report.content import Plot, Report
from steelyard.eval.report.html import to_html
from steelyard.eval.report.markdown import to_markdown

_STEM = "report"


def write_report(report: Report, out: Path) -> list[Path]:
    """Write it; files that are there are replaced.

    Args:
        report: what to write.
        out: a folder, for ``report.md`` with its plots beside it and ``report.html``; or the one
            file that is wanted, ``x.md`` (with plots ``x-*.svg``) or ``x.html``.

    Returns:
        The files, the report itself first.

    Raises:
        InputError: a file that is neither.
    """
    if out.is_dir() or not out.suffix:
        return [*_markdown(report, out / f"{_STEM}.md"), _html(report, out / f"{_STEM}.html")]
    if out.suffix == ".md":
        return _markdown(report, out)
    if out.suffix in (".html", ".htm"):
        return [_html(report, out)]
    raise InputError(f"cannot write a report to {out}", "give a folder, a .md or a .html file")


def _markdown(report: Report, path: Path) -> list[Path]:
    plots = [
        block for section in report.sections for block in section.blocks if isinstance(block, Plot)
    ]
    files = {plot.name: path.with_name(f"{path.stem}-{plot.name}.svg") for plot in plots}
    text = to_markdown(report, lambda plot: quote(files[plot.name].name))
    for plot in plots:
        _write(files[plot.name], plot.svg)
    return [_write(path, text), *files.values()]


def _html(report: Report, path: Path) -> Path:
    return _write(path, to_html(report))


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    return path
