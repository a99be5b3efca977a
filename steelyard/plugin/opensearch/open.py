"""From a URL to the engine."""

from __future__ import annotations

import os

from steelyard.plugin.engine import Engine
from steelyard.plugin.opensearch.connection import Connection
from steelyard.plugin.opensearch.engine import OpenSearchEngine
from steelyard.plugin.opensearch.settings import read_settings
from steelyard.plugin.urls import EngineUrl
from steelyard.plugin.vocabulary import Vocabulary


def open_opensearch(url: EngineUrl, must_exist: bool, vocabulary: Vocabulary | None) -> Engine:
    """``opensearch://host:9200/NAME``, ``opensearchs://`` with TLS: see ``open_engine``."""
    del must_exist  # opening makes nothing
    tls = url.scheme == "opensearchs"
    settings = read_settings(url.host, tls=tls, environment=os.environ)
    return OpenSearchEngine(Connection(settings), url.alias, vocabulary)
