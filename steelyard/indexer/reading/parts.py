"""What a corpus is made of: files, each a sequence of numbered rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol


class Row(NamedTuple):
    """One record of a file, or why there is none.

    Attributes:
        line: where it begins, from 1: a line of a text file, a row of a table.
        value: its fields; None where they cannot be read.
        reason: why not.
    """

    line: int
    value: Mapping[str, Any] | None
    reason: str = ""


class Part(Protocol):
    """One file of records, or one data set."""

    @property
    def name(self) -> str:
        """Within its corpus; empty when it is the only one."""

    @property
    def format(self) -> str:
        """How it is read."""

    @property
    def untyped(self) -> bool:
        """Whether all values are texts, so that declared ones are to be converted."""

    @property
    def files(self) -> Sequence[Path]:
        """Whose bytes are all that it holds."""

    def count(self) -> int:
        """Number of rows."""

    def rows(self, fields: Mapping[str, str] | None = None) -> Iterator[Row]:
        """All rows, in order.

        Args:
            fields: declared metadata fields; columns that nothing needs may be left out. None:
                all columns are wanted.

        Raises:
            InputError: they cannot be read to their end.
        """
