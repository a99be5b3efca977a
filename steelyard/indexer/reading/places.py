"""Lines of many files as one sequence of numbers, so that a place takes 40 bits."""

from __future__ import annotations

from bisect import bisect_right


class Places:
    """Numbers lines through all files; to be asked in the order of reading."""

    def __init__(self) -> None:
        self._files: list[str] = []
        self._before: list[int] = []
        self._last = 0

    def number(self, file: str, line: int) -> int:
        """A line's number, 1 or more."""
        if not self._files or self._files[-1] != file:
            self._files.append(file)
            self._before.append(self._last)
        self._last = self._before[-1] + line
        return self._last

    def show(self, number: int, file: str) -> str:
        """What a number stands for; the file is named when it is not ``file``."""
        at = bisect_right(self._before, number - 1) - 1
        line = f"line {number - self._before[at]}"
        return line if self._files[at] in ("", file) else f"{line} of {self._files[at]}"
