"""Where shards lie when nobody says."""

from __future__ import annotations

from pathlib import Path

from steelyard.config import cache_dir
from steelyard.indexer.encoding.manifest import EncodingPlan


def shards_folder(plan: EncodingPlan) -> Path:
    """A folder in the cache, named by everything the shards depend on.

    The same plan always finds the same folder, and two plans never share one.
    """
    return cache_dir() / "shards" / plan.fingerprint
