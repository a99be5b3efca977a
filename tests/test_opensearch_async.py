"""OpenSearch awaited: the same answers as by threads, on a real node."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steelyard.errors import EngineError
from steelyard.plugin.abilities import AsyncSearchIndex, OpensAsync
from steelyard.plugin.engine import Candidates, Engine
from steelyard.plugin.filters import Eq
from steelyard.plugin.fusion import Fusion
from steelyard.plugin.opensearch.async_index import AsyncOpenSearchIndex
from steelyard.plugin.opensearch.engine import OpenSearchEngine
from tests.servers.opensearch_words import Opener, Words
from tests.test_milvus_lite import documents, generation
from tests.test_opensearch_deadline import stopped
from tests.test_opensearch_faults import BUSY, Fake, connect, fake, mappings
from tests.test_opensearch_match import fill

pytest_plugins = ["tests.servers.opensearch", "tests.servers.opensearch_alias"]

__all__ = ["fake"]


def same(found: list[Candidates], expected: list[Candidates]) -> None:
    assert [answer.ids for answer in found] == [answer.ids for answer in expected]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours.scores, theirs.scores)


async def opened(engine: Engine, generation: Any) -> AsyncOpenSearchIndex:
    assert isinstance(engine, OpensAsync)
    index = await engine.open_async(generation)
    assert isinstance(index, AsyncOpenSearchIndex)
    return index


@pytest.mark.opensearch
def test_answers_are_those_of_threads(opener: Opener, named: Any) -> None:
    engine, content, condition = opener(Words()), documents(40), Eq("sale", True)
    theirs: Any = fill(engine, named(), content)

    async def ask() -> None:
        index = await opened(engine, named())
        protocol: AsyncSearchIndex = index
        assert (protocol.generation, protocol.arms) == (theirs.generation, theirs.arms)
        dense, sparse, match, joined, stored, shown = await asyncio.gather(
            index.dense.search(content.dense, 5, filter=condition, timeout=60),
            index.sparse.search(content.sparse, 5, offset=2),
            index.match.search(["text 7", ""], 5),
            index.hybrid(content.dense, content.sparse, Fusion(), 20, 5, filter=condition),
            index.get(["d7", "nobody"], vectors=True, terms=True),
            index.highlight(["d7"], "title"),
        )
        same(dense, theirs.dense.search(content.dense, 5, filter=condition))
        same(sparse, theirs.sparse.search(content.sparse, 5, offset=2))
        same(match, theirs.match.search(["text 7", ""], 5))
        same(
            joined, theirs.hybrid(content.dense, content.sparse, Fusion(), 20, 5, filter=condition)
        )
        expected = theirs.get(["d7"], vectors=True, terms=True)
        assert stored.keys() == expected.keys()
        assert stored["d7"].document == expected["d7"].document
        np.testing.assert_array_equal(stored["d7"].dense, expected["d7"].dense)
        assert shown == theirs.highlight(["d7"], "title")
        assert await engine.open_async(named()) is not index  # type: ignore[attr-defined]
        await engine.close_async()  # type: ignore[attr-defined]
        await engine.close_async()  # type: ignore[attr-defined]

    asyncio.run(ask())
    asyncio.run(ask())  # another loop has connections of its own


@pytest.mark.opensearch
def test_errors_are_those_of_threads(opener: Opener, named: Any) -> None:
    engine, content = opener(Words()), documents(40)
    sparse_only = replace(named(), arms=("sparse",), arms_elsewhere=("dense",))
    fill(engine, sparse_only, content)

    async def ask() -> None:
        index = await opened(engine, sparse_only)
        assert index.arms == ("sparse", "match")
        with pytest.raises(EngineError, match="has no dense arm"):
            await index.dense.search(content.dense, 3)
        with pytest.raises(EngineError, match="is not in this cluster"):
            await opened(engine, named(2))
        with pytest.raises(EngineError, match="cannot name an index"):
            await opened(engine, replace(named(), name="*"))
        engine.drop(sparse_only)
        with pytest.raises(EngineError, match="index_not_found"):
            await index.match.search(["text"], 3)

        class Others(Words):
            texts = tuple(f"o{i}" for i in range(50))

        fill(engine, named(3), content)
        with pytest.raises(EngineError, match="in the pack's tokenizer and"):
            await engine.open_async(named(3), Others())  # type: ignore[attr-defined]
        await engine.close_async()  # type: ignore[attr-defined]

    asyncio.run(ask())


@pytest.mark.opensearch
def test_a_stopped_node_is_not_waited_for(opensearch_url: str, opener: Opener, named: Any) -> None:
    engine, content = opener(Words()), documents(40)
    fill(engine, named(), content)

    async def ask() -> None:
        index = await opened(engine, named())
        await index.dense.search(content.dense, 3)
        with stopped(opensearch_url):
            answers = await asyncio.gather(
                index.dense.search(content.dense, 3, timeout=0.3),
                index.get(["d1"], timeout=0.3),
                return_exceptions=True,
            )
            for answer in answers:
                assert isinstance(answer, EngineError)
                assert "in 0.3 s" in answer.message
            waiting = asyncio.create_task(index.dense.search(content.dense, 3))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert (await index.dense.search(content.dense[:1], 3))[0].ids
        await engine.close_async()  # type: ignore[attr-defined]

    asyncio.run(ask())


def answering(fake: Fake, *answers: tuple[int, Any]) -> None:
    left = [(200, mappings()), *answers]
    fake.answer = lambda method, path, body: left.pop(0) if len(left) > 1 else left[0]


@pytest.mark.parametrize("trouble", [BUSY, (503, "<html>"), (0, None)])
def test_busy_servers_and_lost_connections_are_asked_again(
    fake: Fake, trouble: tuple[int, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    hit = {"_score": 1.5, "fields": {"id": ["d1"]}}
    answering(fake, trouble, trouble, (200, {"responses": [{"hits": {"hits": [hit]}}]}))
    engine = OpenSearchEngine(connect(fake), "demo", Words())

    async def ask() -> list[str]:
        index = await opened(engine, generation())
        (found,) = await index.dense.search(documents(1).dense, 3)
        fake.answer = lambda method, path, body: trouble
        with pytest.raises(EngineError, match="cannot search"):
            await index.dense.search(documents(1).dense, 3)
        await engine.close_async()
        return found.ids

    assert asyncio.run(ask()) == ["d1"]
    assert len(fake.requests) == 1 + 3 + 4
    assert capfd.readouterr() == ("", "")


def test_certificates_and_logins(fake: Fake, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    openssl = shutil.which("openssl")
    assert openssl is not None
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    fake.server.socket = context.wrap_socket(fake.server.socket, server_side=True)
    answering(fake)
    connection = connect(fake, tls=True, ca=str(certificate), user="ann", password="word")  # noqa: S106
    engine = OpenSearchEngine(connection, "demo", Words())

    async def ask() -> None:
        assert (await opened(engine, generation())).generation == generation()
        await engine.close_async()
        connection.settings = replace(connection.settings, ca=None)
        with pytest.raises(EngineError, match=r"is not trusted: .*self.signed"):
            await opened(engine, generation())
        await engine.close_async()

    asyncio.run(ask())
    assert fake.logins == {"Basic YW5uOndvcmQ="}
