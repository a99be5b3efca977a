"""Where documents are loaded: an engine by its URL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from steelyard.indexer.records_place import records_of
from steelyard.plugin.engine import Engine
from steelyard.plugin.records import RecordStore
from steelyard.plugin.urls import parse_url, split_pair

PATIENCE = 300.0
"""Seconds for which a load waits for a server that is busy or restarting."""


@dataclass(frozen=True, slots=True)
class Sink:
    """One engine to load.

    Attributes:
        url: of the engine, without credentials; the sink's journal is found by it.
        open: connects to it; several times, as no connection should idle through an encoding.
        closes: what was opened is closed again; False: it is somebody else's.
        records: the alias' records; None: where the URL says.
    """

    url: str
    open: Callable[[], Engine]
    closes: bool = True
    records: Callable[[Engine], RecordStore] | None = None

    def records_of(self, engine: Engine) -> RecordStore:
        """Leases, positions and the log of live changes of what was opened."""
        return records_of(engine, self.url) if self.records is None else self.records(engine)


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load did.

    Attributes:
        generation: physical name that the alias now stands for.
        documents: the engine's own count.
        clipped: sparse weights cut to the largest impact.
        reused: the alias already stood for exactly this.
        dropped: generations removed: older ones, and what killed loads left behind.
        refused: rows that the engine itself did not take.
        sink: the engine's URL.
    """

    generation: str
    documents: int
    clipped: int
    reused: bool
    dropped: list[str]
    refused: int = 0
    sink: str = ""


def steady_url(url: str) -> str:
    """The URL of an engine such that the same engine has the same one.

    A file's path is made absolute: the same command from another folder is another engine.
    """
    pair = split_pair(url)
    if pair:
        return ",".join(
            f"{n}={steady_url(u)}" for n, u in zip(("dense", "sparse"), pair, strict=True)
        )
    parsed = parse_url(url)
    if parsed.host:
        return f"{parsed.scheme}://{parsed.host}/{parsed.alias}"
    return f"{parsed.scheme}://{Path(parsed.path).resolve()}?name={parsed.alias}"
