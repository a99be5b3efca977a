"""Where the records and the log of an engine's alias are: in the engine, or in a folder."""

from __future__ import annotations

import re
from pathlib import Path

from steelyard.config import state_dir
from steelyard.plugin.engine import Engine
from steelyard.plugin.folder_records import FolderRecords
from steelyard.plugin.records import KeepsRecords, RecordStore
from steelyard.plugin.urls import EngineUrl, parse_url, split_pair

_BESIDE = ("milvus-lite", "lucene")
"""Engines that are a file or a folder of this machine."""


def records_of(engine: Engine, url: str) -> RecordStore:
    """The records of what a URL names.

    Args:
        engine: opened; its own records are used if it keeps any.
        url: it was opened from. Of a pair without records the sparse engine's, which leads.

    Raises:
        InputError: not an engine URL.
    """
    if isinstance(engine, KeepsRecords):
        return engine.records()
    return FolderRecords(records_folder(url))


def records_folder(url: str) -> Path:
    """The folder of an engine that keeps no records.

    ``<file or folder>.steelyard/<alias>`` beside a file or a folder; of a server a folder in
    ``state_dir()``, named by scheme, host and alias.
    """
    pair = split_pair(url)
    parsed = parse_url(pair[1] if pair else url)
    if parsed.scheme in _BESIDE:
        path = Path(parsed.path).resolve()
        return path.with_name(f"{path.name}.steelyard") / parsed.alias
    return state_dir() / _server_name(parsed)


def _server_name(url: EngineUrl) -> str:
    host = re.sub(r"[^A-Za-z0-9.-]", "_", url.host)
    return f"{url.scheme}_{host}_{url.alias}"
