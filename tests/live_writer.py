"""A process that changes an index until it is killed: ``python -m tests.live_writer``.

It says a line for each change that was acknowledged, and ``at STEP`` where it stops for ever.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from steelyard.indexer.changes.live import LiveIndex
from steelyard.indexer.changes.writing import Writer
from steelyard.indexer.records_place import records_of
from steelyard.plugin.urls import open_engine
from steelyard.progress import SilentProgress
from steelyard.types import Document
from tests.live_changes import hash_encoder, words
from tests.servers.opensearch_words import Words

LEASE_SECONDS = 2.0


def main(url: str, name: str, number: int, count: int, stop_at: str) -> None:
    """Change an index ``count`` times, then stop at a step of the next change.

    Args:
        url: of the engine.
        name: of this writer; every third document is one that all writers write.
        number: of the first change.
        count: changes before the last one.
        stop_at: "log", "upsert", "delete", "finish", or "" for none.
    """
    engine = open_engine(url, vocabulary=Words())
    live = LiveIndex(
        engine,
        records_of(engine, url),
        hash_encoder,
        SilentProgress(),
        wait=120,
        lease_seconds=LEASE_SECONDS,
    )
    for n in range(number, number + count):
        change(live, name, n)
        print(n, flush=True)
    if stop_at:
        stop(engine, stop_at)
        change(live, name, number + count)
    engine.close()


def change(live: LiveIndex, name: str, n: int) -> None:
    """Change number n: longer and shorter documents in turn, some of them deleted again."""
    if n % 5 == 4:
        live.delete([f"{name}-{n - 3}"])
        return
    length = (1, 9, 4, 7)[n % 4]
    documents = [Document(f"{name}-{n % 7}", words(length, n * 10), "", "", {"price": float(n)})]
    if n % 3 == 0:
        documents.append(Document("common", words(1 + n % 8, n * 10), "", "", {"brand": name}))
    live.upsert(documents)


def stop(engine: Any, step: str) -> None:
    """Stop for ever before a step, or behind it with "log"."""

    def for_ever(*_: Any, **__: Any) -> None:
        print(f"at {step}", flush=True)
        time.sleep(600)

    steps = {"log": ["put", "remove"], "finish": ["finish"]}
    if step in steps:
        for name in steps[step]:
            setattr(Writer, name, for_ever)
    else:
        setattr(engine, step, for_ever)


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main(**arguments)
