"""A report as Markdown (GitHub's), plots as files beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from steelyard.eval.report.content import Block, Code, Plot, Report, Table, Text

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~$@:-])")


def to_markdown(report: Report, link: Callable[[Plot], str]) -> str:
    """The text.

    Args:
        report: what to write.
        link: address of a plot's file, percent-encoded.
    """
    parts = [f"# {escape(report.title)}"]
    for section in report.sections:
        parts.append(f"## {escape(section.title)}")
        parts += [_block(block, link) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """A text that Markdown shows as it is: no markup, no HTML, no mention, no link."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", text)


def _block(block: Block, link: Callable[[Plot], str]) -> str:
    if isinstance(block, Text):
        return _prose(block.text)
    if isinstance(block, Code):
        longest = max((len(run) for run in re.findall("`+", block.text)), default=0)
        fence = "`" * max(3, longest + 1)
        return f"{fence}sh\n{block.text}\n{fence}"
    if isinstance(block, Table):
        lines = [_row(block.columns), _row(["---", *["---:"] * (len(block.columns) - 1)], raw=True)]
        lines += [_row(row) for row in block.rows]
        return f"**{_prose(block.caption)}**\n\n" + "\n".join(lines)
    return f"**{_prose(block.title)}**\n\n![{escape(block.alt)}]({link(block)})"


def _prose(text: str) -> str:
    return escape(text)


def _row(cells: Sequence[str], *, raw: bool = False) -> str:
    return "| " + " | ".join(cell if raw else escape(cell) for cell in cells) + " |"
