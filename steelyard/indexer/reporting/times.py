"""Moments as text, all in UTC."""

from __future__ import annotations

from datetime import datetime, timezone


def utc_now() -> str:
    """This moment in ISO 8601, to the millisecond: 2026-03-01T02:00:00.000+00:00."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def seconds_since(moment: str) -> float:
    """Seconds from a moment in ISO 8601 until now; by two clocks, if another machine wrote it."""
    return (datetime.now(timezone.utc) - datetime.fromisoformat(moment)).total_seconds()


def duration(seconds: float) -> str:
    """For people: 42 s, 3 min 7 s, 2 h 5 min, 3 d 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"
