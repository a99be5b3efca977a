"""The resident set of this process, from Linux's ``/proc``.

Not ``getrusage``: its peak is inherited from the process that started this one.
"""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def resident_bytes() -> int | None:
    """Held now; None where this system cannot tell."""
    return _bytes("VmRSS")


def peak_resident_bytes() -> int | None:
    """Largest so far, or since ``reset_peak``; None where this system cannot tell."""
    return _bytes("VmHWM")


def reset_peak() -> int | None:
    """Let the peak count from here; what is held now, None where this cannot be done.

    Freed memory that the allocator keeps is given back: it would hide what comes next.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        _CLEAR.write_text(_RESET_PEAK)
    except (OSError, AttributeError):
        return None
    return resident_bytes()


def _bytes(name: str) -> int | None:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(x.split()[1]) * 1024 for x in lines if x.startswith(f"{name}:")), None)
