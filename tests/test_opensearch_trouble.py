"""A real node behind a proxy that is busy, loses connections, or is slow: nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from steelyard.errors import EngineError
from steelyard.plugin.backoff import Backoff
from steelyard.plugin.opensearch.connection import Connection
from steelyard.plugin.opensearch.engine import OpenSearchEngine
from steelyard.plugin.opensearch.settings import Settings
from steelyard.plugin.urls import open_engine
from tests.servers.opensearch_node import ask
from tests.servers.opensearch_words import Words
from tests.servers.tls_proxy import Proxy, Trouble, running_proxy
from tests.test_milvus_lite import documents, generation

pytest_plugins = ["tests.servers.opensearch", "tests.servers.opensearch_alias"]
pytestmark = [pytest.mark.opensearch]

ALWAYS = 1_000_000
CUT = 1  # byte: in the middle of any answer, {} too


@pytest.fixture
def proxy(opensearch_url: str, url: str) -> Iterator[Proxy]:
    """Before the shared node; ``url`` clears the test's alias away."""
    del url
    with running_proxy(opensearch_url) as made:
        yield made


def connect(proxy: Proxy, alias: str, timeout: float = 60.0) -> OpenSearchEngine:
    """An engine that tries four times and does not wait between."""
    settings = Settings("127.0.0.1", proxy.port, timeout=timeout)
    backoff = Backoff(attempts=4, wait=lambda seconds: None)
    return OpenSearchEngine(Connection(settings, backoff), alias, Words())


def life(engine: OpenSearchEngine, alias: str) -> dict[str, Any]:
    """All that is done to an index, and what came of it."""
    old, new = (generation(f"{alias}_2026010100000{n}_0000000{n}") for n in (1, 2))
    content = documents(40)
    for made in (old, new):
        engine.create(made)
        engine.upsert(made, content)
        engine.delete(made, ["d3", "d4", "unknown"])
        engine.seal(made)
        engine.publish(made)
    found = engine.resolve()
    assert found is not None
    index = engine.open(found)
    exported = index.export()
    outcome = {
        "published": found.name,
        "generations": sorted(each.name for each in engine.generations()),
        "count": index.count(),
        "dense": [answer.ids for answer in index.dense.search(content.dense[:3], 9)],
        "sparse": [answer.ids for answer in index.sparse.search(content.sparse.select([5, 6]), 9)],
        "got": sorted(index.get(["d1", "d2", "d3"])),
        "exported": sorted(document.id for document in exported.documents),
    }
    engine.drop(old)
    return {**outcome, "left": [each.name for each in engine.generations()]}


@pytest.mark.parametrize(
    "trouble",
    [
        Trouble(status=429, every=2, times=ALWAYS),
        Trouble(status=503, every=2, times=ALWAYS),
        Trouble(cut=CUT, every=2, times=ALWAYS),
    ],
    ids=["busy", "unavailable", "answers lost"],
)
def test_a_life_in_which_every_request_fails_once(
    proxy: Proxy, alias: str, trouble: Trouble
) -> None:
    engine = connect(proxy, alias)
    try:
        expected = life(engine, alias)
        for name in expected["left"]:
            ask(proxy.upstream, "DELETE", f"/{name}")
        proxy.requests.clear()
        proxy.statuses.clear()
        proxy.troubles.append(trouble)
        assert life(engine, alias) == expected
    finally:
        engine.close()
    assert expected["count"] == 38
    failed = trouble.status
    assert proxy.statuses[::2] == [failed] * len(proxy.statuses[::2])
    # What failed is what is asked again.
    assert proxy.requests[::2] == proxy.requests[1::2]


@pytest.mark.parametrize(
    ("trouble", "message", "hint"),
    [
        (Trouble(status=429, times=ALWAYS), "answers 429: .*trouble on demand", "overloaded"),
        (Trouble(status=503, times=ALWAYS), "answers 503: .*trouble on demand", "restarting"),
        (Trouble(cut=CUT, times=ALWAYS), "no answer from 127.0.0.1", "check that the server runs"),
    ],
    ids=["busy", "unavailable", "answers lost"],
)
def test_trouble_that_stays_is_an_error_in_the_end(
    proxy: Proxy, alias: str, trouble: Trouble, message: str, hint: str
) -> None:
    engine = connect(proxy, alias)
    try:
        made = generation(f"{alias}_20260101000001_00000001")
        engine.create(made)
        engine.upsert(made, documents(40))
        engine.seal(made)
        index = engine.open(made)
        proxy.requests.clear()
        proxy.troubles.append(trouble)
        with pytest.raises(EngineError, match=message) as caught:
            index.dense.search(documents(40).dense[:3], 9)
        assert hint in caught.value.hint
        assert len(proxy.requests) == 4
        assert len(set(proxy.requests)) == 1
        proxy.troubles.clear()
        (answer,) = index.dense.search(documents(40).dense[:1], 9)
        assert len(answer.ids) == 9
    finally:
        engine.close()


def test_an_answer_that_comes_too_late(
    proxy: Proxy, alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = connect(proxy, alias, timeout=1.0)
    try:
        made = generation(f"{alias}_20260101000001_00000001")
        engine.create(made)
        engine.upsert(made, documents(40))
        engine.seal(made)
        index = engine.open(made)
        queries = documents(40).dense[:3]
        expected = index.dense.search(queries, 9)
        proxy.troubles.append(Trouble(path="_msearch", silent=True))
        again = index.dense.search(queries, 9)
        for found, wanted in zip(again, expected, strict=True):
            assert found.ids == wanted.ids
            np.testing.assert_array_equal(found.scores, wanted.scores)
        assert 0 in proxy.statuses
        proxy.troubles[:] = [Trouble(silent=True, times=ALWAYS)]
        with pytest.raises(EngineError, match=r"no answer from 127.0.0.1"):
            index.dense.search(queries, 9)
        proxy.requests.clear()
        with pytest.raises(EngineError, match=r"no answer from 127.0.0.1:\d+ in 0.3 s"):
            index.dense.search(queries, 9, timeout=0.3)
        assert len(proxy.requests) <= 1, "the time is for all attempts together"
    finally:
        engine.close()
    monkeypatch.setenv("STEELYARD_OPENSEARCH_TIMEOUT", "0.3")
    with pytest.raises(EngineError, match=r"cannot reach the server: .*timed out"):
        open_engine(proxy.url(alias, tls=False))
