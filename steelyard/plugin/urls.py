"""Engines are URLs: ``milvus-lite:///path/file.db?name=demo``, ``opensearch://host:9200/demo``.

Two engines that hold one arm each are ``dense=URL,sparse=URL``. Other packages add engines by
entry points of the group ``steelyard.engines``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qs, quote, unquote, urlsplit

from steelyard.errors import EngineError, InputError, SteelyardError, first_line
from steelyard.plugin.engine import Engine
from steelyard.plugin.vocabulary import Vocabulary

ENTRY_POINTS = "steelyard.engines"
"""The name of an entry point is the scheme, its object an ``OpenEngine``."""

_FILES = ("milvus-lite", "lucene")
"""Engines that are a file or a folder: their URLs name the index by ``name=``."""

_ALIAS = re.compile(r"[a-z][a-z0-9_]{0,99}")
_PAIR = re.compile(r"dense=(?P<dense>.+),sparse=(?P<sparse>.+)|sparse=(.+),dense=(.+)")


@dataclass(frozen=True, slots=True)
class EngineUrl:
    """The parts of an engine's URL.

    Attributes:
        scheme: which engine.
        host: and port, of a server; empty for a file.
        path: of a file engine.
        alias: the name that users search.
    """

    scheme: str
    host: str
    path: str
    alias: str


OpenEngine: TypeAlias = Callable[[EngineUrl, bool, "Vocabulary | None"], Engine]
"""Opens an engine: its URL, whether it must be there already, and the pack's tokenizer."""

_BUILT_IN = {
    "milvus-lite": "steelyard.plugin.milvus.open:open_milvus_lite",
    "milvus": "steelyard.plugin.milvus.open:open_milvus",
    "milvuss": "steelyard.plugin.milvus.open:open_milvus",
    "opensearch": "steelyard.plugin.opensearch.open:open_opensearch",
    "opensearchs": "steelyard.plugin.opensearch.open:open_opensearch",
    "lucene": "steelyard.plugin.lucene.engine:open_lucene",
}


def parse_url(url: str) -> EngineUrl:
    """Take a URL apart.

    A server's URL names the index by its path, a file's by ``name=``.

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
    if parts.netloc and parts.scheme not in _FILES:
        if query:
            raise InputError(
                "the engine URL names the index by 'name='",
                f"write {parts.scheme}://{parts.netloc}/NAME",
            )
        alias = unquote(parts.path).strip("/") or alias
    if not _ALIAS.fullmatch(alias):
        raise InputError(
            f"{alias!r} cannot name an index",
            "use lower-case letters, digits and underscores, a letter first, at most 100",
        )
    return EngineUrl(parts.scheme, parts.netloc, unquote(parts.path), alias)


def open_engine(
    url: str, *, must_exist: bool = False, vocabulary: Vocabulary | None = None
) -> Engine:
    """Connect to the engine a URL names, or to the two of a pair.

    Args:
        url: the engine; ``dense=URL,sparse=URL`` for one arm in each of two.
        must_exist: for readers: a file engine that is not there is an error, not made.
        vocabulary: the pack's tokenizer, ``QueryEncoder.tokenizer``: OpenSearch keys terms by
            token strings. Milvus needs none.

    Raises:
        InputError: an unknown scheme; the known ones are listed.
        EngineError: it cannot be reached.
    """
    pair = split_pair(url)
    if pair:
        return _open_pair(*pair, must_exist, vocabulary)
    parsed = parse_url(url)
    return _opener(parsed.scheme, url)(parsed, must_exist, vocabulary)


def _open_pair(dense: str, sparse: str, must_exist: bool, vocabulary: Vocabulary | None) -> Engine:
    from steelyard.plugin.paired import PairedEngine

    first = open_engine(dense, must_exist=must_exist, vocabulary=vocabulary)
    try:
        second = open_engine(sparse, must_exist=must_exist, vocabulary=vocabulary)
    except BaseException:
        first.close()
        raise
    try:
        return PairedEngine(first, second)
    except EngineError:
        first.close()
        second.close()
        raise


def relative_to(url: str, folder: Path) -> str:
    """The same URL, with the path of a file engine taken from ``folder`` where it is relative."""
    pair = split_pair(url)
    if pair:
        return ",".join(
            f"{arm}={relative_to(one, folder)}"
            for arm, one in zip(("dense", "sparse"), pair, strict=True)
        )
    scheme, colon, rest = url.partition(":")
    if scheme not in _FILES or not colon or rest.startswith("/"):
        return url
    path, mark, query = rest.partition("?")
    return f"{scheme}:{quote(str(folder))}/{path}{mark}{query}"


def _shown(url: str) -> str:
    """What of a text that is no URL may be shown: it may hold a login."""
    before = url.split("://")[0]
    return "..." if "@" in before else before[:80]


def split_pair(url: str) -> tuple[str, str] | None:
    """The URLs of the dense and the sparse engine of a pair; None for one engine."""
    pair = _PAIR.fullmatch(url)
    return (pair["dense"] or pair[4], pair["sparse"] or pair[3]) if pair else None


def _opener(scheme: str, url: str) -> OpenEngine:
    if scheme in _BUILT_IN:
        module, _, name = _BUILT_IN[scheme].partition(":")
        opener: OpenEngine = getattr(import_module(module), name)
        return opener
    found = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if scheme not in found:
        known = ", ".join(sorted({*_BUILT_IN, *found}))
        raise InputError(
            f"no engine for {scheme or _shown(url)!r}",
            f"known: {known}; for example opensearch://host:9200/NAME, "
            "milvus-lite:///path/to/file.db?name=NAME",
        )
    try:
        loaded: OpenEngine = found[scheme].load()
    except SteelyardError:
        raise
    except Exception as error:  # another package's code
        raise EngineError(
            f"the engine {scheme!r} ({found[scheme].value}) cannot be loaded: {first_line(error)}",
            "look at the package that brings it",
        ) from error
    return loaded
