"""What people see: bars and tables on the terminal, JSON in files."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
)
from rich.table import Table
from rich.text import Text

from steelyard.indexer.reporting.recorder import Ticker
from steelyard.indexer.reporting.redaction import redact
from steelyard.indexer.reporting.stages import Stage, StageState
from steelyard.indexer.reporting.times import duration

console = Console(highlight=False)
status = Console(stderr=True, highlight=False)

LINE_SECONDS = 30.0
_TOLD = {"rejected": "rejected", "retries": "sent again", "clipped_weights": "weights clipped"}

JsonOption = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Also write the result as JSON."),
]


class RichProgress:
    """Bars on a terminal, all open stages together; elsewhere a line for each now and then.

    When a stage ends, one line says how long it took.

    Args:
        target: None is standard error.
        seconds: between two lines of a stage where there are no bars.
    """

    def __init__(self, target: Console | None = None, seconds: float = LINE_SECONDS) -> None:
        self._console = target or status
        self._seconds = seconds
        self._lock = threading.RLock()
        self._open: list[Stage] = []
        self._bars: _Bars | None = None
        self._ticker: Ticker | None = None
        self._counters: Counter[str] = Counter()

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Show a stage until it ends, then how long it took."""
        stage = Stage(name, total)
        advance = self._show(stage)
        try:
            yield advance
        finally:
            stage.end()
            self._hide(stage)
        state = stage.state()
        rate = f", {state.rate:,.0f}/s" if state.rate and state.seconds > 1 else ""
        amount = f"{state.done:,} in " if state.done else ""
        self.say(f"{name}: {amount}{state.seconds:.1f} s{rate}")

    def say(self, text: str) -> None:
        """One line."""
        self._console.print(f"  {redact(text)}", markup=False, soft_wrap=True)

    def count(self, name: str, n: int = 1, **labels: str) -> None:
        """Show what is out of the ordinary under the bars."""
        if name == "documents" and labels.get("stage") in ("rejected", "refused"):
            name = "rejected"
        if name in _TOLD:
            with self._lock:
                self._counters[name] += n

    def fact(self, name: str, value: str | int, **labels: str) -> None:
        """Not shown."""

    def _show(self, stage: Stage) -> Callable[[int], None]:
        with self._lock:
            self._open.append(stage)
            if not self._console.is_terminal:
                if self._ticker is None:
                    self._ticker = Ticker(self._lines, self._seconds)
                    self._ticker.start()
                return stage.advance
            if self._bars is None:
                self._bars = _Bars(self._console, self._counters)
                self._bars.start()
            bars = self._bars
            task = bars.add_task(stage.name, total=stage.total, stage=stage)

        def advance(count: int) -> None:
            stage.advance(count)
            bars.advance(task, count)

        return advance

    def _hide(self, stage: Stage) -> None:
        ticker = None
        with self._lock:
            self._open.remove(stage)
            if self._bars is not None:
                for task in self._bars.tasks:
                    if task.fields["stage"] is stage:
                        self._bars.remove_task(task.id)
                if not self._open:
                    self._bars.stop()
                    self._bars = None
            if not self._open:
                ticker, self._ticker = self._ticker, None
        if ticker is not None:
            ticker.stop()

    def _lines(self) -> None:
        with self._lock:
            states = [stage.state() for stage in self._open]
            counts = _counts(self._counters)
        for state in states:
            of = f" of {state.total:,}" if state.total is not None else ""
            pace = _pace(state)
            self.say(f"{state.name}: {state.done:,}{of}" + (f", {pace}" if pace else ""))
        if counts:
            self.say(counts)


class _Bars(Progress):
    """The bars, and under them what is out of the ordinary."""

    def __init__(self, target: Console, counters: Counter[str]) -> None:
        self._counters = counters  # before Progress.__init__, which draws already
        super().__init__(
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _PaceColumn(),
            console=target,
            transient=True,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """Bars, then counters."""
        yield self.make_tasks_table(self.tasks)
        if counts := _counts(self._counters):
            yield Text(f"  {counts}", style="dim")


class _PaceColumn(ProgressColumn):
    """Rate of the last minute, and how long it will take."""

    def render(self, task: Task) -> Text:
        """For example "850/s, 3 min 7 s to go"."""
        return Text(_pace(task.fields["stage"].state()))


def _pace(state: StageState) -> str:
    if state.rate is None:
        return ""
    rate = f"{state.rate:,.0f}/s" if state.rate >= 10 else f"{state.rate:.2g}/s"
    eta = state.eta_seconds
    return rate if eta is None else f"{rate}, {duration(eta)} to go"


def _counts(counters: Counter[str]) -> str:
    return ", ".join(f"{_TOLD[name]} {n:,}" for name, n in list(counters.items()) if n)


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
