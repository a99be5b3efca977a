"""A Milvus Lite file: held by this process while one of its engines is open, and no longer.

Milvus Lite serves a file from threads of this process, and pymilvus never stops them. Without this
a file that was closed could not be opened by another process until this one ends.
"""

from __future__ import annotations

import os
import threading
from collections import Counter

from steelyard.errors import needs_extra
from steelyard.plugin.milvus.connection import Connection

_open: Counter[str] = Counter()
"""Engines open on each file: the server in this process is one for all of them."""

_lock = threading.Lock()


class FileConnection(Connection):
    """A connection to one file.

    Args:
        path: of the file; made when it is not there.

    Raises:
        EngineError: it is in use by another process, or no Milvus Lite file.
    """

    def __init__(self, path: str) -> None:
        with needs_extra("milvus"):
            from milvus_lite.server_manager import server_manager_instance
            from pymilvus import MilvusClient
        self._manager, self._path = server_manager_instance, os.path.abspath(path)  # noqa: PTH100
        self._held = False
        with _lock:
            super().__init__(lambda: MilvusClient(path), path)
            _open[self._path] += 1
            self._held = True

    def close(self) -> None:
        """Let go of the connection; the last one lets go of the file."""
        super().close()
        if not self._held:
            return
        self._held = False
        with _lock:
            _open[self._path] -= 1
            if not _open[self._path]:
                self._manager.release_server(self._path)
