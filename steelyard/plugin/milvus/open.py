"""From a URL to the engine."""

from __future__ import annotations

from steelyard.errors import InputError
from steelyard.plugin.engine import Engine
from steelyard.plugin.urls import EngineUrl
from steelyard.plugin.vocabulary import Vocabulary


def open_milvus_lite(url: EngineUrl, must_exist: bool, vocabulary: Vocabulary | None) -> Engine:
    """``milvus-lite:///path/file.db?name=NAME``: see ``open_engine``."""
    del vocabulary  # terms are numbers there
    from steelyard.plugin.milvus_lite import MilvusLiteEngine

    if url.host:
        raise InputError(
            f"milvus-lite is a file here, not a host ({url.host!r})",
            "write milvus-lite:///absolute/path.db or milvus-lite:relative/path.db",
        )
    return MilvusLiteEngine(url.path, url.alias, must_exist=must_exist)
