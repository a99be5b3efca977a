"""Fixtures: an alias of the test's own on the shared node, opened as an engine.

A test module that wants them names this module in ``pytest_plugins``, beside
``tests.servers.opensearch``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import pytest

from steelyard.plugin.engine import Engine
from steelyard.plugin.urls import open_engine
from steelyard.plugin.vocabulary import Vocabulary
from tests.servers.opensearch_node import ask
from tests.servers.opensearch_words import Opener
from tests.test_milvus_lite import generation

_ALIASES = count()


@pytest.fixture
def alias() -> str:
    return f"demo{next(_ALIASES)}"


@pytest.fixture
def url(opensearch_url: str, alias: str) -> Iterator[str]:
    """An alias of the test's own; its indexes are gone afterwards."""
    yield f"opensearch://{urlsplit(opensearch_url).netloc}/{alias}"
    for name in ask(opensearch_url, "GET", f"/{alias}*/_settings?expand_wildcards=all"):
        ask(opensearch_url, "DELETE", f"/{name}")


@pytest.fixture
def opener(url: str) -> Iterator[Opener]:
    """Opens the test's alias, and closes what it opened."""
    opened: list[Engine] = []

    def opening(vocabulary: Vocabulary | None) -> Engine:
        opened.append(open_engine(url, vocabulary=vocabulary))
        return opened[-1]

    yield opening
    for made in opened:
        made.close()


@pytest.fixture
def named(alias: str) -> Any:
    """The generation of ``documents``, by number."""
    return lambda number=1: generation(f"{alias}_2026010100000{number}_0000000{number}")
