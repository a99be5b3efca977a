"""One contender in a process of its own: how long until it answers, and how much memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from steelyard.eval.bench.peers.peer import Peer, Setting
from steelyard.eval.bench.resident_memory import peak_resident_bytes


def measure_alone(
    peer: Peer, setting: Setting, folder: Path, texts: Sequence[str], batch: int
) -> dict[str, Any]:
    """Open it, ask it one query, then all."""
    before = peak_resident_bytes()
    started = time.perf_counter()
    opened = peer.open(setting, folder)
    opened.one(texts[0])
    ready = time.perf_counter() - started
    some = texts if peer.most is None else texts[: peer.most]
    for start in range(0, len(some), batch):
        opened.many(some[start : start + batch])
    return {
        "start_seconds": ready,
        "bare_peak_bytes": before,
        "peak_bytes": peak_resident_bytes(),
    }
