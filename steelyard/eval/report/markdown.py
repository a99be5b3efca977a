"""A report as Markdown (GitHub's), plots as files beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from steelyard.eval.report.content import Block, Code, Plot, Report, Table, Text

_SPECIAL = re.compile(r"[\\`*_\[\]|~$]|(?<!\w)@|:(?=//|\w+:)|(?<=www)\.|#(?=\d)")
_AT_START = re.compile(r"^(\s*\d*)([#+=:.)-])")


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
    return _AT_START.sub(r"\1\\\2", _inline(text))


def _inline(text: str) -> str:
    """The same where no line begins."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\g<0>", text)


def _block(block: Block, link: Callable[[Plot], str]) -> str:
    if isinstance(block, Text):
        return escape(block.text)
    if isinstance(block, Code):
        longest = max((len(run) for run in re.findall("`+", block.text)), default=0)
        fence = "`" * max(3, longest + 1)
        return f"{fence}sh\n{block.text}\n{fence}"
    if isinstance(block, Table):
        sides = "| --- |" + " ---: |" * (len(block.columns) - 1)
        lines = [_row(block.columns), sides, *map(_row, block.rows)]
        return f"**{_inline(block.caption)}**\n\n" + "\n".join(lines)
    return f"**{_inline(block.title)}**\n\n![{_inline(block.alt)}]({link(block)})"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_inline, cells)) + " |"
