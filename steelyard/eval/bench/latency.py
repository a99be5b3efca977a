"""Latency and throughput from text to hits: several searchers, the same queries, taking turns."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from steelyard.errors import InputError
from steelyard.plugin.searcher import Searcher
from steelyard.progress import Progress

SHARES = (50, 95, 99)
"""Percentiles that are reported."""

TURN = 25
"""Queries that each of several clients asks of a contender before the next one's turn."""

_WARM_UP = 20
"""Queries of each client that are not counted, a tenth of the counted ones at most."""


@dataclass
class Taken:
    """What one contender took.

    Attributes:
        seconds: of each search, from text to hits, as its client saw it.
        encode_seconds: of these, until the query was encoded; waiting for the model included.
        wall: seconds of all its turns together.
        processor: of these, processor seconds of this process, all its threads; what a server
            spends is not among them.
        hits: found by all searches.
    """

    seconds: list[float] = field(default_factory=list)
    encode_seconds: list[float] = field(default_factory=list)
    wall: float = 0.0
    processor: float = 0.0
    hits: int = 0

    def row(self, contender: str) -> dict[str, Any]:
        """As JSON: milliseconds, and searches a second."""
        search = [
            whole - encode for whole, encode in zip(self.seconds, self.encode_seconds, strict=True)
        ]
        return {
            "contender": contender,
            "searches": len(self.seconds),
            "hits": self.hits,
            "qps": round(len(self.seconds) / self.wall, 1),
            "client_processor_ms": round(self.processor / len(self.seconds) * 1e3, 3),
            "total_ms": milliseconds(self.seconds),
            "encode_ms": milliseconds(self.encode_seconds),
            "search_ms": milliseconds(search),
        }


def percentile(values: Sequence[float], share: int) -> float:
    """The smallest value that at least ``share`` per cent of them do not exceed (nearest rank)."""
    if not values:
        raise InputError("no percentile of no values", "measure at least one query")
    return sorted(values)[max(0, math.ceil(share * len(values) / 100) - 1)]


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """Percentiles and mean."""
    result = {f"p{share}": percentile(seconds, share) for share in SHARES}
    result["mean"] = sum(seconds) / len(seconds)
    return {name: round(value * 1e3, 3) for name, value in result.items()}


def bench_latency(
    contenders: Mapping[str, Searcher],
    texts: Sequence[str],
    warm_up: Sequence[str],
    progress: Progress,
    *,
    clients: Sequence[int] = (1, 4),
    k: int = 10,
) -> list[dict[str, Any]]:
    """Every query once of every contender, for each number of clients.

    One client asks a query of all contenders before the next query; of several, each asks 25
    before the contenders change. Who begins rotates. A client asks its next query when the last
    is answered.

    Args:
        contenders: searchers over one index, by name.
        texts: queries.
        warm_up: others, asked before the clock starts: connections are opened, words known.
        progress: shows the searches.
        clients: threads that ask at the same time.
        k: hits, with their texts.

    Returns:
        For each number of clients: ``clients`` and the ``rows`` of the contenders.
    """
    results = []
    for count in clients:
        taken = {name: Taken() for name in contenders}
        with (
            ThreadPoolExecutor(count) as threads,
            progress.stage(f"{count} clients", len(texts) * len(contenders)) as advance,
        ):
            turn, pool = (1, None) if count == 1 else (TURN * count, threads)
            uncounted = max(1, min(_WARM_UP, len(texts) // 10)) * count
            for searcher in contenders.values():
                _ask(searcher, warm_up[:uncounted], k, pool)
            for number, part in enumerate(_parts(texts, turn)):
                for name in _rotated(list(contenders), number):
                    _take_turn(taken[name], contenders[name], part, k, pool)
                    advance(len(part))
        rows = [taken[name].row(name) for name in contenders]
        results.append({"clients": count, "rows": rows})
    return results


def _take_turn(
    taken: Taken,
    searcher: Searcher,
    texts: Sequence[str],
    k: int,
    threads: ThreadPoolExecutor | None,
) -> None:
    started, processor = time.perf_counter(), time.process_time()
    asked = _ask(searcher, texts, k, threads)
    taken.wall += time.perf_counter() - started
    taken.processor += time.process_time() - processor
    for seconds, encode_seconds, hits in asked:
        taken.seconds.append(seconds)
        taken.encode_seconds.append(encode_seconds)
        taken.hits += hits


def _ask(
    searcher: Searcher, texts: Sequence[str], k: int, threads: ThreadPoolExecutor | None
) -> list[tuple[float, float, int]]:
    """Seconds, seconds of encoding and hits of each; threads are clients, None is this one."""

    def ask(text: str) -> tuple[float, float, int]:
        started = time.perf_counter()
        answer = searcher.search(text, k)
        return time.perf_counter() - started, answer.encode_seconds, len(answer.hits)

    several: Callable[..., Iterator[tuple[float, float, int]]] = threads.map if threads else map
    return list(several(ask, texts))


def _parts(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for first in range(0, len(texts), size):
        yield texts[first : first + size]


def _rotated(names: list[str], by: int) -> list[str]:
    by %= len(names)
    return [*names[by:], *names[:by]]


def ratios(results: Sequence[Mapping[str, Any]], light: str, heavy: str) -> list[dict[str, Any]]:
    """How many times the heavy contender takes what the light one takes, for each client count."""
    found = []
    for result in results:
        rows = {row["contender"]: row for row in result["rows"]}
        if light not in rows or heavy not in rows:
            continue
        one, other = rows[light], rows[heavy]
        found.append(
            {
                "clients": result["clients"],
                "light": light,
                "heavy": heavy,
                **{
                    f"p{share}_times": round(
                        other["total_ms"][f"p{share}"] / one["total_ms"][f"p{share}"], 2
                    )
                    for share in SHARES
                },
                "qps_times": round(one["qps"] / other["qps"], 2),
                "client_processor_times": round(
                    other["client_processor_ms"] / one["client_processor_ms"], 2
                ),
            }
        )
    return found
