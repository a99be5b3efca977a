"""Settings that come from the environment: where things are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Folder for what can be made again (encoded shards).

    ``$STEELYARD_CACHE``, else ``$XDG_CACHE_HOME/steelyard``, else ``~/.cache/steelyard``.
    """
    return _folder("STEELYARD_CACHE", "XDG_CACHE_HOME", ".cache")


def state_dir() -> Path:
    """Folder for what cannot be made again (leases and logs of engines that keep none).

    ``$STEELYARD_STATE``, else ``$XDG_STATE_HOME/steelyard``, else ``~/.local/state/steelyard``.
    """
    return _folder("STEELYARD_STATE", "XDG_STATE_HOME", ".local/state")


def _folder(own: str, base: str, home: str) -> Path:
    explicit = os.environ.get(own)
    if explicit:
        return Path(explicit).expanduser()
    parent = os.environ.get(base)
    return (Path(parent).expanduser() if parent else Path.home() / home) / "steelyard"
