"""Engines are URLs: ``milvus-lite:///path/file.db?name=demo``, ``opensearch://host:9200/demo``."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from steelyard.errors import InputError
from steelyard.plugin.engine import Engine
from steelyard.plugin.vocabulary import Vocabulary

_ALIAS = re.compile(r"[a-z][a-z0-9_]{0,99}")
_SERVERS = ("opensearch", "opensearchs")
"""Their URLs name the index by the path."""


@dataclass(frozen=True, slots=True)
class EngineUrl:
    """The parts of an engine's URL.

    Attributes:
        scheme: which engine.
        host: and port, of a server.
        path: of a file engine.
        alias: the name that users search.
    """

    scheme: str
    host: str
    path: str
    alias: str


def parse_url(url: str) -> EngineUrl:
    """Take a URL apart.

    Raises:
        InputError: not an engine URL, credentials inside it, or an alias that engines refuse.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InputError(f"not an engine URL: {error}") from error
    if parts.fragment:
        raise InputError("the engine URL has a '#' in it", "write it as %23")
    if parts.username or parts.password:
        raise InputError(
            "the engine URL carries credentials", "put them in the environment instead"
        )
    query = parse_qs(parts.query, keep_blank_values=True)
    unknown = sorted(set(query) - {"name"})
    if unknown:
        raise InputError(f"unknown setting {unknown[0]!r} in the engine URL", "known: name")
    alias = query.get("name", ["documents"])[0]
    if parts.scheme in _SERVERS:
        if query:
            raise InputError(
                "the engine URL names the index by 'name='",
                f"write {parts.scheme}://host:9200/NAME",
            )
        alias = unquote(parts.path).strip("/") or alias
    if not _ALIAS.fullmatch(alias):
        raise InputError(
            f"{alias!r} cannot name an index",
            "use lower-case letters, digits and underscores, a letter first, at most 100",
        )
    return EngineUrl(parts.scheme, parts.netloc, unquote(parts.path), alias)


def _milvus_lite(url: EngineUrl, must_exist: bool, vocabulary: Vocabulary | None) -> Engine:
    del vocabulary  # terms are numbers there
    from steelyard.plugin.milvus_lite import MilvusLiteEngine

    if url.host:
        raise InputError(
            f"milvus-lite is a file here, not a host ({url.host!r})",
            "write milvus-lite:///absolute/path.db or milvus-lite:relative/path.db",
        )
    return MilvusLiteEngine(url.path, url.alias, must_exist=must_exist)


def _opensearch(url: EngineUrl, must_exist: bool, vocabulary: Vocabulary | None) -> Engine:
    from steelyard.plugin.opensearch.connection import Connection
    from steelyard.plugin.opensearch.engine import OpenSearchEngine
    from steelyard.plugin.opensearch.settings import read_settings

    del must_exist  # opening makes nothing
    tls = url.scheme == "opensearchs"
    settings = read_settings(url.host, tls=tls, environment=os.environ)
    return OpenSearchEngine(Connection(settings), url.alias, vocabulary)


def _lucene(url: EngineUrl, must_exist: bool, vocabulary: Vocabulary | None) -> Engine:
    from steelyard.plugin.lucene.engine import open_lucene

    return open_lucene(url, must_exist, vocabulary)


_ENGINES: dict[str, Callable[[EngineUrl, bool, Vocabulary | None], Engine]] = {
    "milvus-lite": _milvus_lite,
    "lucene": _lucene,
    **dict.fromkeys(_SERVERS, _opensearch),
}


def open_engine(
    url: str, *, must_exist: bool = False, vocabulary: Vocabulary | None = None
) -> Engine:
    """Connect to the engine a URL names.

    Args:
        url: the engine.
        must_exist: for readers: a file engine that is not there is an error, not made.
        vocabulary: the pack's tokenizer, ``QueryEncoder.tokenizer``: OpenSearch keys terms by
            token strings. Milvus needs none.

    Raises:
        InputError: an unknown scheme; the known ones are listed.
        EngineError: it cannot be reached.
    """
    parsed = parse_url(url)
    if parsed.scheme not in _ENGINES:
        raise InputError(
            f"no engine for {parsed.scheme or url!r}",
            "known: milvus-lite:///path/to/file.db?name=NAME, lucene:///path/to/folder?name=NAME, "
            "opensearch://host:9200/NAME, opensearchs://host:9200/NAME",
        )
    return _ENGINES[parsed.scheme](parsed, must_exist, vocabulary)
