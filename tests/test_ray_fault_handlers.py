"""Ray comes and goes, and the process's handlers of faults stay."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.ray

SCRIPT = """
import signal
from steelyard.indexer.ray.cluster import connected
from steelyard.indexer.ray.fault_handlers import FAULTS, fault_handler
from steelyard.indexer.ray.settings import RaySettings
import faulthandler, ray
faulthandler.enable()
before = {number: fault_handler(number) for number in FAULTS}
with connected(RaySettings(actors=1)):
    assert ray.is_initialized()
    assert {number: fault_handler(number) for number in FAULTS} == before
assert not ray.is_initialized()
assert {number: fault_handler(number) for number in FAULTS} == before
assert any(before[signal.SIGSEGV])
print("kept")
"""


def test_ray_leaves_the_handlers_as_they_were() -> None:
    """In a process of its own, with Python's own handlers in place."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("kept")
