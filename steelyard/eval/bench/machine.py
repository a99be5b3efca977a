"""What a benchmark ran on: a part of its report."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from steelyard.errors import needs_extra

_CPUINFO = Path("/proc/cpuinfo")


def machine() -> dict[str, Any]:
    """Processor, its cores that this process may use, Python, and what else runs just now.

    ``load_average`` is that of the last minute: clearly above 0, others took part of the cores.
    """
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }


def set_torch_threads(threads: int | None) -> int:
    """PyTorch's threads for one operation: those that are set, or its own choice."""
    with needs_extra("index"):
        import torch
    if threads is not None:
        torch.set_num_threads(threads)
    return int(torch.get_num_threads())


def _processor() -> str:
    if _CPUINFO.is_file():
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
