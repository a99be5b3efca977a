"""One contender in a process of its own: how long until it answers, and how much memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from steelyard.eval.bench.peers.peer import Peer, Setting

_STATUS = Path("/proc/self/status")


def measure_alone(
    peer: Peer, setting: Setting, folder: Path, texts: Sequence[str], batch: int
) -> dict[str, Any]:
    """Open it, ask it one query, then all.

    Not ``getrusage``: its peak is inherited from the process that started this one.
    """
    before = _peak()
    started = time.perf_counter()
    opened = peer.open(setting, folder)
    opened.one(texts[0])
    ready = time.perf_counter() - started
    some = texts if peer.most is None else texts[: peer.most]
    for start in range(0, len(some), batch):
        opened.many(some[start : start + batch])
    return {"start_seconds": ready, "bare_peak_bytes": before, "peak_bytes": _peak()}


def _peak() -> int | None:
    """Largest resident set so far, in bytes; None where this system cannot tell."""
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM:")), None)
