"""From an engine's URL to a Milvus: ``milvus://host:19530/NAME``, ``milvus-lite:///x.db?name=``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from steelyard.errors import EngineError, InputError
from steelyard.plugin.engine import Engine
from steelyard.plugin.milvus.connection import connect_server
from steelyard.plugin.milvus.engine import MilvusEngine
from steelyard.plugin.milvus.lite_file import FileConnection
from steelyard.plugin.milvus.server_engine import MilvusServerEngine
from steelyard.plugin.milvus.settings import read_settings
from steelyard.plugin.vocabulary import Vocabulary

if TYPE_CHECKING:
    from steelyard.plugin.urls import EngineUrl


def open_milvus(url: EngineUrl, must_exist: bool, vocabulary: Vocabulary | None) -> Engine:
    """A server; ``milvuss`` is TLS.

    Raises:
        InputError: a setting of the environment that cannot be.
        EngineError: it cannot be reached, refuses the login, or is too old.
    """
    del must_exist, vocabulary  # opening makes nothing; terms are numbers here
    settings = read_settings(url.host, tls=url.scheme == "milvuss", environment=os.environ)
    return MilvusServerEngine(connect_server(settings), url.alias, settings)


def open_milvus_lite(url: EngineUrl, must_exist: bool, vocabulary: Vocabulary | None) -> Engine:
    """A file, made when it is not there.

    Raises:
        EngineError: the file is not there and must be, in use by another process, or no Milvus
            Lite file.
    """
    del vocabulary
    path = url.path
    if url.host:
        raise InputError(
            f"milvus-lite is a file here, not a host ({url.host!r})",
            "write milvus-lite:///absolute/path.db or milvus-lite:relative/path.db",
        )
    if not path.endswith(".db"):
        raise InputError(
            f"milvus-lite needs a file that ends in .db, not {path!r}",
            "milvus-lite:///path/file.db?name=NAME",
        )
    if must_exist and not Path(path).exists():
        raise EngineError(f"no Milvus Lite file at {path}", "make one with 'steelyard index'")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = FileConnection(path)
    except EngineError as error:
        raise EngineError(
            f"cannot open the Milvus Lite file {path}: {error.message}",
            "it belongs to one process at a time: close the other one, or check the path",
        ) from None
    return MilvusEngine(connection, url.alias, lite=True)
