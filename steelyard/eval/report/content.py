"""What a report is made of, before it is Markdown or HTML.

Texts are plain: a writer escapes all of them, whoever they came from.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

_UNSEEN = "\N{REPLACEMENT CHARACTER}"
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They turn the direction of the text around them."""


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True, slots=True)
class Code:
    """Lines of a shell."""

    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as they are shown; the first column is the row's name.

    Attributes:
        caption: what it shows.
        columns: heads.
        rows: each as long as ``columns``.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture.

    Attributes:
        name: of its file, without an ending: letters, digits and hyphens.
        title: what it shows.
        alt: what it says, for who does not see it.
        svg: the picture.
    """

    name: str
    title: str
    alt: str
    svg: str


Block: TypeAlias = Text | Code | Table | Plot


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything."""

    title: str
    sections: Sequence[Section]


def plain(text: str) -> str:
    """A text on one line that every writer can hold: no control characters, no lone surrogates."""
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character in "\t\n\r":
        return " "
    if character in _TURNING or unicodedata.category(character) in ("Cc", "Cs", "Cn"):
        return _UNSEEN
    return character
