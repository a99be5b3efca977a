"""What searchers do when a real server stops answering, comes back, or has lost its index.

Dense vectors in Milvus, terms and texts in OpenSearch; servers are stopped by a signal.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from pymilvus import MilvusClient

from steelyard.errors import EngineError
from steelyard.indexer.loading.load import load_shards
from steelyard.plugin.async_searcher import AsyncSearcher
from steelyard.plugin.searcher import Searcher
from steelyard.plugin.urls import open_engine
from steelyard.progress import SilentProgress
from tests.conftest import Small

pytest_plugins = ["tests.servers.opensearch", "tests.servers.milvus"]
pytestmark = [pytest.mark.opensearch, pytest.mark.milvus]

TEXT = "heart attack and vitamin D"
DEADLINE = 2.0


def listening(port: int) -> int:
    """The process that listens on a port of this machine."""
    for connection in psutil.net_connections("tcp"):
        listens = connection.status == "LISTEN" and connection.laddr[1:2] == (port,)
        if listens and connection.pid:
            return int(connection.pid)
    raise AssertionError(f"nothing listens on {port}")


@contextmanager
def frozen(port: int) -> Iterator[None]:
    """The server keeps its connections and answers nothing."""
    process = listening(port)
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


@pytest.fixture(scope="module")
def urls(opensearch_url: str, milvus_address: str, small: Small) -> Iterator[dict[str, Any]]:
    node = urlsplit(opensearch_url).netloc
    pair = f"dense=milvus://{milvus_address}/failing,sparse=opensearch://{node}/failing"
    made = small.made
    engine = open_engine(pair, vocabulary=small.encoder.tokenizer)
    load_shards(made.manifest, made.shards, made.metadata, engine, SilentProgress())
    yield {
        "pair": pair,
        "milvus": int(milvus_address.rsplit(":", 1)[1]),
        "opensearch": urlsplit(opensearch_url).port,
    }
    engine.close()


@pytest.mark.parametrize(("server", "arm"), [("milvus", "dense"), ("opensearch", "sparse")])
def test_a_server_that_does_not_answer(
    urls: dict[str, Any], small: Small, server: str, arm: str
) -> None:
    settings: dict[str, Any] = {"deadline": DEADLINE, "resolve_every": 1e9}
    with (
        Searcher.open(small.pack, urls["pair"], **settings) as strict,
        Searcher.open(
            small.pack, urls["pair"], on_engine_failure="degrade", **settings
        ) as lenient,
    ):
        before = lenient.search(TEXT, 5)
        assert before.missing == {}
        with frozen(urls[server]):
            with pytest.raises(EngineError):
                strict.search(TEXT, 5)
            degraded = lenient.search(TEXT, 5)
            assert arm in degraded.missing
            assert degraded.hits
            assert all(getattr(hit, arm) is None for hit in degraded.hits)
            # The texts are in OpenSearch.
            assert ("documents" in degraded.missing) == (server == "opensearch")
        recovered = answered(lenient)
        assert [hit.id for hit in recovered.hits] == [hit.id for hit in before.hits]


def answered(searcher: Searcher) -> Any:
    """The first whole answer after a server is back; its first requests may still be late."""
    for _ in range(30):
        answer = searcher.search(TEXT, 5)
        if not answer.missing:
            return answer
    raise AssertionError(answer.missing)


def test_tasks_degrade_too(urls: dict[str, Any], small: Small) -> None:
    async def search() -> Any:
        searcher = await AsyncSearcher.open(
            small.pack, urls["pair"], on_engine_failure="degrade", deadline=DEADLINE
        )
        async with searcher:
            whole = await searcher.search(TEXT, 5)
            with frozen(urls["milvus"]):
                degraded = await searcher.search(TEXT, 5)
            return whole, degraded

    whole, degraded = asyncio.run(search())
    assert whole.missing == {}
    assert set(degraded.missing) == {"dense"}
    assert len(degraded.hits) == 5


def test_an_arm_that_has_lost_its_index(urls: dict[str, Any], small: Small) -> None:
    """Somebody dropped the collection by hand."""
    pair = urls["pair"].replace("/failing", "/losing")
    made = small.made
    engine = open_engine(pair, vocabulary=small.encoder.tokenizer)
    report = load_shards(made.manifest, made.shards, made.metadata, engine, SilentProgress())
    with (
        Searcher.open(small.pack, pair) as strict,
        Searcher.open(small.pack, pair, on_engine_failure="degrade") as lenient,
    ):
        assert len(strict.search(TEXT, 5).hits) == 5
        client = MilvusClient(f"http://127.0.0.1:{urls['milvus']}")
        client.drop_alias("losing")
        client.drop_collection(report.generation)
        client.close()
        with pytest.raises(EngineError, match=report.generation):
            strict.search(TEXT, 5)
        degraded = lenient.search(TEXT, 5)
        assert set(degraded.missing) == {"dense"}
        assert len(degraded.hits) == 5
    engine.close()
