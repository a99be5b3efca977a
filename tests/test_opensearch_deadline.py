"""Time limits of OpenSearch calls, on a node that is stopped or never has time."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from steelyard.errors import EngineError
from steelyard.plugin.abilities import FusesArms, Highlights
from steelyard.plugin.backoff import Backoff
from steelyard.plugin.engine import SearchIndex
from steelyard.plugin.fusion import Fusion
from steelyard.plugin.opensearch.engine import OpenSearchEngine
from tests.servers.opensearch_words import Opener, Words
from tests.test_milvus_lite import documents, generation
from tests.test_opensearch_faults import BUSY, Fake, connect, fake, mappings
from tests.test_opensearch_match import fill

pytest_plugins = ["tests.servers.opensearch", "tests.servers.opensearch_alias"]

__all__ = ["fake"]


@contextmanager
def stopped(url: str) -> Iterator[None]:
    """The node gets no processor time inside."""
    port = urlsplit(url).port
    (pid,) = {
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
        and getattr(connection.laddr, "port", None) == port
    }
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


Call = Callable[[Any, float], Any]
CALLS: dict[str, Call] = {
    "dense": lambda index, s: index.dense.search(documents(3).dense, 3, timeout=s),
    "sparse": lambda index, s: index.sparse.search(documents(3).sparse, 3, timeout=s),
    "match": lambda index, s: index.match.search(["text"], 3, timeout=s),
    "get": lambda index, s: index.get(["d1"], vectors=True, timeout=s),
    "highlight": lambda index, s: index.highlight(["d1"], "text", timeout=s),
    "hybrid": lambda index, s: index.hybrid(
        documents(3).dense, documents(3).sparse, Fusion(), 10, 5, timeout=s
    ),
}


@pytest.mark.opensearch
def test_a_stopped_node_is_not_waited_for(opensearch_url: str, opener: Opener, named: Any) -> None:
    index = fill(opener(Words()), named(), documents(40))
    assert isinstance(index, Highlights)
    assert isinstance(index, FusesArms)
    before = {name: call(index, 60.0) for name, call in CALLS.items()}
    with stopped(opensearch_url):
        for call in CALLS.values():
            # The connection's own limit is 60 seconds, seven times.
            with pytest.raises(EngineError, match=r"no answer from 127.*:\d+ in 0\.3 s"):
                call(index, 0.3)
    assert CALLS["get"](index, 60.0).keys() == before["get"].keys()
    assert CALLS["dense"](index, 60.0)[0].ids == before["dense"][0].ids


def opened(fake: Fake, waits: list[float]) -> SearchIndex:
    (found,) = mappings().items()
    texts = {"text": {"type": "text"}}
    found[1]["mappings"]["properties"] = texts
    fake.answer = lambda method, path, body: (200, dict([found]))
    return OpenSearchEngine(connect(fake, waits), "demo", Words()).open(generation())


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_time_is_no_request(fake: Fake, call: Call) -> None:
    index = opened(fake, [])
    fake.requests.clear()
    with pytest.raises(EngineError, match="in 0 s"):
        call(index, 0.0)
    assert fake.requests == []


def test_a_wait_that_is_too_long_is_not_begun(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's own words are told, at once."""
    waits: list[float] = []
    index = opened(fake, waits)
    fake.requests.clear()
    fake.answer = lambda method, path, body: BUSY
    monkeypatch.setattr(Backoff, "waits", lambda self: iter([100.0, 100.0]))
    with pytest.raises(EngineError, match=r"answers 429: .*full"):
        index.dense.search(documents(1).dense, 3, timeout=50.0)
    assert (len(fake.requests), waits) == (1, [])
    with pytest.raises(EngineError, match=r"answers 429: .*full"):
        index.dense.search(documents(1).dense, 3)
    assert (len(fake.requests), waits) == (1 + 3, [100.0, 100.0])


def test_a_busy_part_of_an_answer_is_asked_again(fake: Fake) -> None:
    waits: list[float] = []
    index = opened(fake, waits)
    good = {"hits": {"hits": [{"_score": 1.5, "fields": {"id": ["d1"]}}]}}
    answers = [{"responses": [{"status": 429, **BUSY[1]}]}, {"responses": [good]}]
    fake.answer = lambda method, path, body: (200, answers.pop(0))
    assert index.dense.search(documents(1).dense, 3)[0].ids == ["d1"]
    assert len(waits) == 1
