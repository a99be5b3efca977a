"""Where a pack goes: a cluster, and one alias in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from steelyard.errors import InputError
from steelyard.plugin.engine import Generation
from steelyard.plugin.opensearch.connection import Connection
from steelyard.plugin.opensearch.engine import OpenSearchEngine
from steelyard.plugin.opensearch.settings import read_settings
from steelyard.plugin.urls import parse_url

_TLS = {"opensearch": False, "opensearchs": True}


@dataclass(frozen=True, slots=True)
class Target:
    """A cluster and an alias.

    Attributes:
        url: as the user gave it.
        connection: to the cluster.
        alias: the name that users search.
    """

    url: str
    connection: Connection
    alias: str

    def current(self) -> Generation | None:
        """The generation that the alias stands for."""
        return OpenSearchEngine(self.connection, self.alias).resolve()


@contextmanager
def open_target(url: str) -> Iterator[Target]:
    """Connect to the cluster of an engine URL.

    Raises:
        InputError: not an OpenSearch.
        EngineError: it cannot be reached.
    """
    parts = parse_url(url)
    if parts.scheme not in _TLS:
        raise InputError(
            f"queries are encoded inside an OpenSearch only, not in {parts.scheme or 'this'!r}",
            "write opensearch://host:9200/NAME; for a pair of engines, its OpenSearch",
        )
    settings = read_settings(parts.host, tls=_TLS[parts.scheme], environment=os.environ)
    connection = Connection(settings)
    try:
        yield Target(url, connection, parts.alias)
    finally:
        connection.close()
