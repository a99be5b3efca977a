"""Logins, encryption, and what a healthy Milvus cannot be made to show."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc

from steelyard.errors import EngineError, InputError
from steelyard.local_servers.milvus import ROOT_PASSWORD
from steelyard.plugin.backoff import Backoff
from steelyard.plugin.milvus.async_index import AsyncClients
from steelyard.plugin.milvus.connection import Connection, Deadline, connect_server
from steelyard.plugin.milvus.settings import Settings, read_settings
from steelyard.plugin.urls import open_engine, parse_url

pytest_plugins = ["tests.servers.milvus"]

SECRET = "s3cret-word"  # noqa: S105
RATE_LIMIT = common_pb2.Status(code=8, reason="rate limit exceeded", error_code=49)
NOT_READY = common_pb2.Status(code=1, reason="service not ready", retriable=True)
FULL = common_pb2.Status(code=9, reason="disk quota exhausted")


class Fake(milvus_pb2_grpc.MilvusServiceServicer):  # type: ignore[misc]
    """A server whose answers a test chooses.

    Attributes:
        version: what it says it is.
        answers: to ``has_collection``, in turn, the last for ever: a Status, a code of gRPC, or
            None for "there is one".
        asked: how often it was asked that.
        logins: the authorization headers seen.
    """

    def __init__(self) -> None:
        self.version = "v2.6.1"
        self.answers: list[Any] = [None]
        self.asked = 0
        self.logins: set[str | None] = set()
        self.server = grpc.server(ThreadPoolExecutor(4))
        milvus_pb2_grpc.add_MilvusServiceServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def Connect(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.logins.add(dict(context.invocation_metadata()).get("authorization"))
        return milvus_pb2.ConnectResponse(status=common_pb2.Status(), identifier=1)

    def GetVersion(self, request: Any, context: Any) -> Any:  # noqa: N802
        return milvus_pb2.GetVersionResponse(status=common_pb2.Status(), version=self.version)

    def DescribeCollection(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, grpc.StatusCode):
            context.abort(answer, "as the test says")
        return milvus_pb2.DescribeCollectionResponse(status=answer or common_pb2.Status())


@pytest.fixture
def fake() -> Iterator[Fake]:
    made = Fake()
    yield made
    made.server.stop(None).wait()


def settings(fake: Fake, **changes: Any) -> Settings:
    return Settings("127.0.0.1", fake.port, **changes)


def connect(fake: Fake, waits: list[float] | None = None) -> Connection:
    waited = [] if waits is None else waits
    return connect_server(settings(fake), Backoff(attempts=4, wait=waited.append))


def ask(connection: Connection, deadline: Deadline | None = None) -> Any:
    return connection.call("look", "has_collection", "x", deadline=deadline)


@pytest.mark.parametrize("trouble", [RATE_LIMIT, NOT_READY, grpc.StatusCode.UNAVAILABLE])
@pytest.mark.parametrize("deadline", [None, 60.0])
def test_busy_servers_and_lost_connections_are_asked_again(
    fake: Fake, trouble: Any, deadline: float | None, capfd: pytest.CaptureFixture[str]
) -> None:
    waits: list[float] = []
    connection = connect(fake, waits)
    fake.answers = [trouble, trouble, None]
    assert ask(connection, Deadline(deadline)) is True
    # pymilvus asks again by itself when a connection is lost.
    again = 0 if trouble is grpc.StatusCode.UNAVAILABLE else 2
    assert len(waits) == again
    assert all(wait <= longest for wait, longest in zip(waits, (0.25, 0.5), strict=False))
    connection.close()
    assert capfd.readouterr() == ("", "")


def test_what_stays_wrong_is_told(fake: Fake, capfd: pytest.CaptureFixture[str]) -> None:
    connection = connect(fake)
    fake.answers = [RATE_LIMIT]
    with pytest.raises(EngineError, match="could not look: rate limit exceeded"):
        ask(connection)
    assert fake.asked == 4
    fake.answers = [FULL]
    with pytest.raises(EngineError, match="could not look: disk quota") as caught:
        ask(connection)
    assert "make room" in caught.value.hint
    assert fake.asked == 5
    fake.answers = [grpc.StatusCode.PERMISSION_DENIED]
    with pytest.raises(EngineError, match="the login may not do that: as the test says"):
        ask(connection)
    fake.answers = [grpc.StatusCode.UNAVAILABLE]
    with pytest.raises(EngineError, match=r"cannot look: no answer from 127.0.0.1:\d+"):
        ask(connection, Deadline(0.5))
    fake.server.stop(None).wait()
    with pytest.raises(EngineError, match=r"cannot look: no answer from 127.0.0.1:\d+"):
        ask(connection)
    with pytest.raises(EngineError, match=r"cannot look: no answer from 127.0.0.1:\d+"):
        ask(connection, Deadline(5))
    connection.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        ask(connection, Deadline(5))
    assert capfd.readouterr() == ("", "")


def test_awaited_requests_are_asked_again_too(
    fake: Fake, capfd: pytest.CaptureFixture[str]
) -> None:
    async def run() -> None:
        clients = AsyncClients(settings(fake), Backoff(attempts=3, base=0.001))
        connection = await clients.of_this_loop()
        assert await clients.of_this_loop() is connection
        fake.answers = [RATE_LIMIT, NOT_READY, None]
        assert await connection.call("look", "has_collection", "x", deadline=Deadline(60)) is True
        fake.answers = [RATE_LIMIT]
        with pytest.raises(EngineError, match="could not look: rate limit exceeded"):
            await connection.call("look", "has_collection", "x")
        fake.server.stop(None).wait()
        with pytest.raises(EngineError, match="cannot look: no answer from"):
            await connection.call("look", "has_collection", "x", deadline=Deadline(10))
        await clients.close()

    asyncio.run(run())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("v2.2.16", r"Milvus v2\.2\.16 at 127.0.0.1:\d+, Steelyard needs 2\.3 or newer"),
        ("nightly", "says that its version is 'nightly'"),
    ],
)
def test_old_servers_are_refused(fake: Fake, version: str, message: str) -> None:
    fake.version = version
    with pytest.raises(EngineError, match=message):
        open_engine(f"milvus://127.0.0.1:{fake.port}/demo")


def test_nobody_there(fake: Fake, capfd: pytest.CaptureFixture[str]) -> None:
    fake.server.stop(None).wait()
    with pytest.raises(EngineError) as caught:
        open_engine(f"milvus://127.0.0.1:{fake.port}/demo")
    assert f"cannot reach the server: no answer from 127.0.0.1:{fake.port}: " in str(caught.value)
    with pytest.raises(EngineError, match=r"no answer from no-such-host.invalid:19530"):
        open_engine("milvus://no-such-host.invalid/demo")
    assert capfd.readouterr() == ("", "")


def test_logins(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"milvus://127.0.0.1:{fake.port}/demo"
    monkeypatch.setenv("STEELYARD_MILVUS_USER", "ann")
    with pytest.raises(InputError, match="STEELYARD_MILVUS_PASSWORD is not set"):
        open_engine(url)
    monkeypatch.setenv("STEELYARD_MILVUS_PASSWORD", SECRET)
    open_engine(url).close()
    with pytest.raises(InputError, match=r"unencrypted to search.example") as caught:
        open_engine("milvus://search.example/demo")
    assert caught.value.hint == "write milvuss:// instead"
    monkeypatch.setenv("STEELYARD_MILVUS_TOKEN", SECRET)
    with pytest.raises(InputError, match="two ways to log in"):
        open_engine(url)
    for name in ("USER", "PASSWORD"):
        monkeypatch.delenv(f"STEELYARD_MILVUS_{name}")
    open_engine(url).close()
    assert fake.logins == {"YW5uOnMzY3JldC13b3Jk", "czNjcmV0LXdvcmQ="}
    assert SECRET not in repr(Settings("h", token=SECRET))


@pytest.mark.milvus
def test_a_real_server_with_tls_and_a_login(
    secured_milvus: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    url = f"milvuss://{secured_milvus.address}/demo"

    def login(password: str | None) -> None:
        for name, value in (("USER", "root"), ("PASSWORD", password)):
            if password is None:
                monkeypatch.delenv(f"STEELYARD_MILVUS_{name}", raising=False)
            else:
                monkeypatch.setenv(f"STEELYARD_MILVUS_{name}", str(value))

    monkeypatch.setenv("STEELYARD_MILVUS_CA", str(secured_milvus.authority))
    login(ROOT_PASSWORD)
    engine = open_engine(url)
    assert engine.resolve() is None
    engine.close()
    for password in (SECRET, None):
        login(password)
        with pytest.raises(EngineError, match="refuses the login") as caught:
            open_engine(url)
        assert "STEELYARD_MILVUS_USER" in caught.value.hint
        assert SECRET not in str(caught.value) + repr(caught.value.__cause__)
    for authority in (str(secured_milvus.stranger), ""):
        login(ROOT_PASSWORD)
        monkeypatch.setenv("STEELYARD_MILVUS_CA", authority)
        with pytest.raises(EngineError, match=r"certificate of .* is not trusted") as caught:
            open_engine(url)
        assert "STEELYARD_MILVUS_CA" in caught.value.hint
    login(None)
    with pytest.raises(EngineError, match="cannot reach the server: no answer") as caught:
        open_engine(f"milvus://{secured_milvus.address}/demo")
    assert "milvus:// against milvuss://" in caught.value.hint
    # gRPC, imported by this module, writes a line on each handshake that fails.
    said = capfd.readouterr().err.splitlines()
    assert [line for line in said if "ssl_transport_security" not in line] == []
    code = f"from steelyard.plugin.urls import open_engine\nopen_engine({url!r})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "is not trusted" in run.stderr
    assert "ssl_transport_security" not in run.stderr


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("milvus:///demo", "names no host"),
        ("milvus://host:port/demo", "not the address of a server"),
        ("milvus://host:99999/demo", "not the address of a server"),
        ("milvus://[::1]:19530/demo", "pymilvus cannot connect to the address"),
        ("milvus://ann:s3cret-word@host/demo", "carries credentials"),
        ("milvus://host/a/b", "'a/b' cannot name an index"),
        ("milvus://host/?name=demo", "names the index by 'name='"),
    ],
)
def test_bad_urls(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_engine(url)
    assert SECRET not in str(caught.value)


def test_settings(tmp_path: Any) -> None:
    assert parse_url("milvuss://host:19531/demo/").alias == "demo"
    found = read_settings("host", tls=False, environment={"STEELYARD_MILVUS_DATABASE": "shop"})
    assert (found.port, found.database, found.token, found.timeout) == (19530, "shop", None, 60)
    for text in ("0", "soon", "inf", "nan"):
        with pytest.raises(InputError, match="STEELYARD_MILVUS_TIMEOUT"):
            read_settings("host", tls=False, environment={"STEELYARD_MILVUS_TIMEOUT": text})
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing", encoding="utf-8")
    for path in (empty, tmp_path / "missing.pem"):
        with pytest.raises(InputError, match="no certificate that can be read"):
            read_settings("host", tls=True, environment={"STEELYARD_MILVUS_CA": str(path)})
