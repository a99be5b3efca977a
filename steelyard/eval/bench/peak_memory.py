"""How much memory a piece of work takes at its peak, beyond what was there before."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from steelyard.eval.bench.resident_memory import peak_resident_bytes, reset_peak


@dataclass
class PeakMemory:
    """``extra_bytes`` at the peak; None where this system cannot tell."""

    extra_bytes: int | None = None


@contextmanager
def peak_memory(device: str) -> Iterator[PeakMemory]:
    """Measure a block: CUDA's own count on a GPU, the resident set on Linux."""
    import torch

    peak = PeakMemory()
    if device.startswith("cuda"):
        gc.collect()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak.extra_bytes = torch.cuda.max_memory_allocated(device) - before
        return
    held = reset_peak()
    yield peak
    most = peak_resident_bytes()
    if held is not None and most is not None:
        peak.extra_bytes = most - held
