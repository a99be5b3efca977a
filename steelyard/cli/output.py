"""What people see: bars and tables on the terminal, JSON in files."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

console = Console(highlight=False)
status = Console(stderr=True, highlight=False)

JsonOption = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Also write the result as JSON."),
]


class RichProgress:
    """Bars on a terminal, one line a finished stage anywhere. Stages may run side by side."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0
        self._bars = _bars()

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Show a stage until it ends, then how long it took."""
        started = time.perf_counter()
        done = 0
        bar = self._opened()
        task = bar.add_task(name, total=total)

        def advance(count: int) -> None:
            nonlocal done
            done += count
            bar.advance(task, count)

        try:
            yield advance
        finally:
            bar.remove_task(task)
            self._closed()
        seconds = time.perf_counter() - started
        rate = f", {done / seconds:,.0f}/s" if done and seconds > 1 else ""
        amount = f"{done:,} in " if done else ""
        status.print(f"  {name}: {amount}{seconds:.1f} s{rate}", markup=False)

    def _opened(self) -> Progress:
        """A terminal has one live display: all stages are in it."""
        with self._lock:
            if not self._open:
                self._bars = _bars()
                self._bars.start()
            self._open += 1
            return self._bars

    def _closed(self) -> None:
        with self._lock:
            self._open -= 1
            if not self._open:
                self._bars.stop()

    def say(self, text: str) -> None:
        """One line."""
        status.print(f"  {text}", markup=False, soft_wrap=True)


def _bars() -> Progress:
    return Progress(
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=status,
        transient=True,
        disable=not status.is_terminal,
    )


def write_json(value: Any, path: Path | None) -> None:
    """Write a result where ``--json`` says; None is nowhere."""
    if path is None:
        return
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def print_pairs(pairs: dict[str, Any]) -> None:
    """Two columns: what, and its value."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in pairs.items():
        table.add_row(name, Text(str(value)))
    console.print(table)


def print_rows(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table, first column left, the others right."""
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for position, column in enumerate(columns):
        table.add_column(
            column, justify="left" if position == 0 else "right", no_wrap=position == 0
        )
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
