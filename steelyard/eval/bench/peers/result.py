"""What a run of contenders found, and its table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from steelyard.eval.bench.peers.peer import DENSE

SIZES = (1, 32, 1024)
"""Batch sizes."""


@dataclass
class Speed:
    """One contender at one batch size.

    Attributes:
        batch: queries of a call; less than asked for where a slow contender gets fewer.
        queries: timed in a round. ``rounds``: the median is of so many.
        microseconds: a query.
    """

    batch: int
    queries: int
    rounds: int
    microseconds: float

    @property
    def per_second(self) -> float:
        """Queries a second."""
        return 1e6 / self.microseconds


@dataclass
class Contender:
    """One row.

    Attributes:
        missing: what is not installed; ``failed``: why there are no figures.
        disk_bytes: what it reads from disk: tables, tokenizer, weights, index.
        start_seconds: import, load and first answer in a new process, files in the file cache:
            median. ``starts``: of so many.
        peak_bytes: largest resident set of that process, which then answers all queries in
            batches of 1,024; None where this system cannot tell. ``bare_peak_bytes``: before
            anything was imported.
        speed: by batch size, threads as they come. ``one_thread``: the same by one thread.
        dims: of its dense vectors.
        difference: largest difference from our vectors in a component (dense), or in a weight of
            tokens that occur once (sparse); None where it is not meant to give ours.
    """

    name: str
    title: str
    gives: str
    install: str
    missing: str | None = None
    failed: str | None = None
    disk_bytes: int | None = None
    start_seconds: float | None = None
    starts: int = 0
    peak_bytes: int | None = None
    bare_peak_bytes: int | None = None
    speed: dict[int, Speed] = field(default_factory=dict)
    one_thread: dict[int, Speed] = field(default_factory=dict)
    dims: int | None = None
    difference: float | None = None
    facts: dict[str, float] = field(default_factory=dict)

    @property
    def present(self) -> bool:
        """Whether it can still be measured."""
        return self.missing is None and self.failed is None


@dataclass
class PeersResult:
    """All rows of a run.

    Attributes:
        machine: processor, cores and versions.
        threads: that libraries take when they are not told.
        queries: different ones. ``warm_texts``: other texts whose words are known.
        split: microseconds a query of a look-up at batch 1,024: token ids, product with the
            table, normalising.
    """

    pack: str
    machine: dict[str, str]
    threads: int
    queries: int
    warm_texts: int
    rounds: int
    contenders: list[Contender]
    split: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        value = asdict(self)
        for row, contender in zip(value["contenders"], self.contenders, strict=True):
            for key in ("speed", "one_thread"):
                speeds: dict[int, Speed] = getattr(contender, key)
                row[key] = {
                    str(size): {**asdict(speed), "per_second": speed.per_second}
                    for size, speed in speeds.items()
                }
        return {"format": 1, **value, "against": self.against()}

    def against(self) -> dict[str, dict[str, Any]]:
        """By batch size: the fastest other that gives dense vectors of our size, and the ratio."""
        ours = self.contenders[0]
        found: dict[str, dict[str, Any]] = {}
        for size, speed in ours.speed.items():
            rivals = [
                other
                for other in self.contenders[1:]
                if other.gives == DENSE and other.dims == ours.dims and size in other.speed
            ]
            if rivals:
                fastest = min(rivals, key=lambda other: other.speed[size].microseconds)
                ratio = fastest.speed[size].microseconds / speed.microseconds
                found[str(size)] = {"fastest": fastest.name, "times": ratio}
        return found


SPEED = ["gives", *(f"at {size:,}" for size in SIZES), "1 thread"]
"""Queries a second by batch size; the last at the largest size."""

COSTS = ["start", "memory", "on disk"]
COLUMNS = ["contender", *SPEED, *COSTS]
FEWER = "*"
"""Marks a figure of a smaller batch than the column's."""


def rows(result: PeersResult) -> list[list[str]]:
    """The table's cells, one row a contender that was measured."""
    table = []
    for one in result.contenders:
        if not one.present:
            continue
        largest = one.one_thread.get(SIZES[-1])
        table.append(
            [
                one.title,
                one.gives,
                *(_speed(one.speed.get(size), size) for size in SIZES),
                f"{largest.per_second:,.0f}" if largest else "",
                f"{one.start_seconds:.2f} s" if one.start_seconds else "",
                _megabytes(one.peak_bytes),
                _megabytes(one.disk_bytes),
            ]
        )
    return table


def markdown(result: PeersResult) -> str:
    """The table for a page."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows(result)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def fewer(result: PeersResult) -> dict[str, int]:
    """Queries in the largest batch of contenders that had fewer than the column's."""
    largest = {one.title: one.speed.get(SIZES[-1]) for one in result.contenders}
    return {title: s.batch for title, s in largest.items() if s and s.batch < SIZES[-1]}


def _speed(speed: Speed | None, size: int) -> str:
    if speed is None:
        return ""
    rate = speed.per_second
    text = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
    return text if speed.batch == size else text + FEWER


def _megabytes(size: int | None) -> str:
    return f"{size / 1e6:,.1f} MB" if size else ""
