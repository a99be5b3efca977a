"""Fixtures: an alias of the test's own on the shared node, opened as an engine.

A test module that wants them names this module in ``pytest_plugins``, beside
``tests.servers.opensearch``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from steelyard.plugin.engine import Candidates, Engine
from steelyard.plugin.urls import open_engine
from steelyard.plugin.vocabulary import Vocabulary
from tests.servers.opensearch_node import ask
from tests.test_milvus_lite import generation

FLOAT32 = 2e-6
"""Impacts up to 512 are exact in rank_features, so that sums differ by float32's rounding only."""


class Words:
    """A vocabulary of fifty, whose first strings are awkward as keys."""

    texts = ("", ".", " ", "a.b", "Ġx", "..", '"', "\\", "é🙂", *(f"t{i}" for i in range(9, 50)))

    def id_to_token(self, id: int, /) -> str | None:
        return self.texts[id] if id < len(self.texts) else None

    def token_to_id(self, token: str, /) -> int | None:
        return self.texts.index(token) if token in self.texts else None


Opener = Callable[..., Engine]
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


def agree(found: Candidates, expected: Candidates, tolerance: float) -> float:
    """The same documents and scores, so the same ranking but for ties; the largest difference."""
    wanted = dict(zip(expected.ids, expected.scores.tolist(), strict=True))
    assert set(found.ids) == set(wanted)
    in_order = np.array([wanted[i] for i in found.ids])
    assert (np.diff(in_order) <= 2 * tolerance).all()
    difference = float(np.abs(found.scores - in_order).max(initial=0.0))
    assert difference <= tolerance
    return difference
