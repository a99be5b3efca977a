"""What a healthy OpenSearch cannot be made to show, by a stand-in that speaks HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from steelyard.errors import EngineError, InputError
from steelyard.plugin.backoff import Backoff
from steelyard.plugin.opensearch.async_connection import AsyncConnection
from steelyard.plugin.opensearch.connection import Connection
from steelyard.plugin.opensearch.engine import OpenSearchEngine
from steelyard.plugin.opensearch.requests import Request, Steps
from steelyard.plugin.opensearch.settings import Settings, read_settings
from steelyard.plugin.urls import open_engine, parse_url
from tests.test_milvus_lite import documents, generation

Answer = Callable[[str, str, str], tuple[int, Any]]
VERSION = {"version": {"distribution": "opensearch", "number": "3.6.0"}}
SECRET = "s3cret-word"  # noqa: S105
BUSY = (429, {"error": {"type": "opensearch_rejected_execution_exception", "reason": "full"}})


class Letters:
    """Fifty tokens."""

    def id_to_token(self, id: int, /) -> str | None:
        return f"t{id}"

    def token_to_id(self, token: str, /) -> int | None:
        return int(token[1:])


class Fake:
    """A server whose answers a test chooses.

    Attributes:
        answer: from method, path and body to status and JSON; None in its place hangs up.
        requests: method and path of what it was asked, the version aside.
        logins: the Authorization headers seen.
    """

    def __init__(self) -> None:
        self.version: tuple[int, Any] = (200, VERSION)
        self.answer: Answer = lambda method, path, body: (200, {})
        self.requests: list[str] = []
        self.logins: set[str | None] = set()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                fake.logins.add(self.headers.get("Authorization"))
                if self.path == "/":
                    status, value = fake.version
                else:
                    fake.requests.append(f"{self.command} {self.path.split('?')[0]}")
                    status, value = fake.answer(self.command, self.path, body)
                if status == 0:
                    self.close_connection = True
                    return
                plain = isinstance(value, str)
                data = value.encode() if plain else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain" if plain else "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815

            def log_message(self, *arguments: Any) -> None:
                """Nothing."""

        return Handler


@pytest.fixture
def fake() -> Iterator[Fake]:
    made = Fake()
    yield made
    made.server.shutdown()
    made.server.server_close()


def connect(fake: Fake, waits: list[float] | None = None, **settings: Any) -> Connection:
    waited = [] if waits is None else waits
    return Connection(
        Settings("127.0.0.1", fake.port, **settings), Backoff(attempts=4, wait=waited.append)
    )


def mappings() -> dict[str, Any]:
    """The answer to a look-up of the generation."""
    meta = {"steelyard": {"generation": json.loads(generation().to_json())}}
    return {generation().name: {"mappings": {"_meta": meta}}}


def writing(items: Answer) -> Answer:
    """Knows the generation, and answers bulk requests by ``items``."""
    return lambda method, path, body: (
        items(method, path, body) if "_bulk" in path else (200, mappings())
    )


def refused(status: int, reason: str) -> tuple[int, Any]:
    return status, {"error": {"type": "some_exception", "reason": reason}}


def in_turn(*answers: tuple[int, Any]) -> Answer:
    left = list(answers)
    return lambda method, path, body: left.pop(0) if len(left) > 1 else left[0]


@pytest.mark.parametrize("trouble", [BUSY, (503, "<html>"), (502, {}), (0, None)])
def test_busy_servers_and_lost_connections_are_asked_again(
    fake: Fake, trouble: tuple[int, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    waits: list[float] = []
    connection = connect(fake, waits)
    fake.answer = in_turn(trouble, trouble, (200, {"count": 3}))
    assert connection.request("count", "GET", "/x/_count") == {"count": 3}
    assert len(waits) == 2
    assert waits[0] <= 0.25
    assert waits[1] <= 0.5
    fake.answer = in_turn(trouble)
    with pytest.raises(EngineError, match="cannot count"):
        connection.request("count", "GET", "/x/_count")
    assert len(fake.requests) == 3 + 4
    assert capfd.readouterr() == ("", "")


def test_other_refusals_are_not_repeated(fake: Fake) -> None:
    connection = connect(fake)
    fake.answer = in_turn(refused(400, "No handler for type [knn_vector] declared on [dense]"))
    with pytest.raises(EngineError, match="answers 400") as caught:
        connection.request("create x", "PUT", "/x")
    assert caught.value.hint == "install the k-NN plugin in every node"
    fake.answer = in_turn((413, "Request Entity Too Large"))
    with pytest.raises(EngineError) as caught:
        connection.request("write", "POST", "/x/_bulk")
    assert "http.max_content_length" in caught.value.hint
    fake.answer = in_turn(refused(403, "no permissions for [indices:a]"))
    with pytest.raises(EngineError, match=r"may not do that \(403\): .*indices:a"):
        connection.request("write", "POST", "/x/_bulk")
    assert len(fake.requests) == 3


def test_only_the_busy_items_are_sent_again(fake: Fake) -> None:
    bodies: list[str] = []

    def answer(method: str, path: str, body: str) -> tuple[int, Any]:
        bodies.append(body)
        ids = [json.loads(line)["index"]["_id"] for line in body.splitlines()[::2]]
        busy = {"d1", "d2"} if len(bodies) == 1 else set()
        error = {"type": "rejected", "reason": "queue full"}
        return 200, {
            "errors": bool(busy),
            "items": [
                {"index": {"status": 429, "error": error} if i in busy else {"status": 201}}
                for i in ids
            ],
        }

    fake.answer = writing(answer)
    made = generation()
    engine = OpenSearchEngine(connect(fake), "demo", Letters())
    engine.upsert(made, documents(5))
    assert [body.count('"_id"') for body in bodies] == [5, 2]
    one = {"items": [{"index": {"status": 201}}]}
    fake.answer = writing(lambda method, path, body: (200, one))
    with pytest.raises(EngineError, match=r"5 items sent to .*, 1 answered"):
        engine.upsert(made, documents(5))
    item = {"index": {"status": 429, "error": {"type": "rejected", "reason": "queue full"}}}
    fake.answer = writing(
        lambda method, path, body: (200, {"items": [item] * (body.count("\n") // 2)})
    )
    with pytest.raises(
        EngineError, match="too busy to take 5 of 5 documents: queue full"
    ) as caught:
        engine.upsert(made, documents(5))
    assert "overloaded" in caught.value.hint


def test_deletes_of_what_is_not_there(fake: Fake) -> None:
    """A document may be missing; the index may not."""
    item: dict[str, Any] = {"status": 404}
    fake.answer = writing(lambda method, path, body: (200, {"items": [{"delete": item}]}))
    engine = OpenSearchEngine(connect(fake), "demo", Letters())
    engine.delete(generation(), ["d1"])
    item["error"] = {"type": "index_not_found_exception", "reason": "no such index [x]"}
    with pytest.raises(EngineError, match="is not in this cluster, so nothing"):
        engine.delete(generation(), ["d1"])
    item["error"] = {"type": "shard_not_found_exception", "reason": "no such shard"}
    with pytest.raises(EngineError, match=r"cannot write to .* answers 404: .*no such shard"):
        engine.delete(generation(), ["d1"])


@pytest.mark.parametrize("closing", [(200, {}), (403, {"error": "no"})])
def test_an_export_that_fails_gives_its_point_in_time_back(
    fake: Fake, closing: tuple[int, Any]
) -> None:
    def answer(method: str, path: str, body: str) -> tuple[int, Any]:
        if "_mapping" in path:
            return 200, mappings()
        if method == "DELETE":
            closed.append(json.loads(body))
            return closing
        return (200, {"pit_id": "p1"}) if "point_in_time" in path else refused(400, "too much")

    closed: list[Any] = []
    fake.answer = answer
    index = OpenSearchEngine(connect(fake), "demo").open(generation())
    with pytest.raises(EngineError, match=r"answers 400: .*too much"):
        index.export()
    assert closed == [{"pit_id": ["p1"]}]


def test_a_failure_is_raised_inside_an_awaited_call(fake: Fake) -> None:
    def steps() -> Steps[str]:
        try:
            yield Request("count", "GET", "/x/_count")
        except EngineError as error:
            yield Request("tidy", "DELETE", "/x/tidied")
            return error.message
        return "no error"

    async def call() -> str:
        connection = AsyncConnection(Settings("127.0.0.1", fake.port))
        try:
            return await connection.run(steps())
        finally:
            await connection.close()

    fake.answer = lambda method, path, body: (
        (200, {}) if method == "DELETE" else refused(400, "too much")
    )
    assert "too much" in asyncio.run(call())
    assert fake.requests == ["GET /x/_count", "DELETE /x/tidied"]


def test_incomplete_answers_are_no_answers(fake: Fake) -> None:
    part: dict[str, Any] = {"status": 200, "_shards": {"failed": 1}, "hits": {"hits": []}}
    fake.answer = lambda method, path, body: (
        200,
        mappings() if "_mapping" in path else {"responses": [part]},
    )
    index = OpenSearchEngine(connect(fake), "demo").open(generation())
    for changes, message in (
        ({}, "not all shards answered"),
        ({"_shards": {"failed": 0}, "timed_out": True}, "not all shards answered"),
        ({"status": 429, "error": BUSY[1]["error"]}, "answers 429: .*full"),
    ):
        part.update(changes)
        with pytest.raises(EngineError, match=message):
            index.dense.search(documents(1).dense, 3)


@pytest.mark.parametrize("character", ["\n", "\r", "é"])
def test_a_key_that_no_header_can_hold_is_not_shown(character: str) -> None:
    environment = {"STEELYARD_OPENSEARCH_API_KEY": SECRET + character}
    with pytest.raises(InputError, match=r"STEELYARD_OPENSEARCH_API_KEY has a char") as caught:
        read_settings("localhost", tls=False, environment=environment)
    assert SECRET not in str(caught.value)
    with pytest.raises(InputError):
        Settings("localhost", api_key=SECRET + character)


def test_logins(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"opensearch://127.0.0.1:{fake.port}/demo"
    monkeypatch.setenv("STEELYARD_OPENSEARCH_USER", "ann")
    with pytest.raises(InputError, match="STEELYARD_OPENSEARCH_PASSWORD is not set"):
        open_engine(url)
    monkeypatch.setenv("STEELYARD_OPENSEARCH_PASSWORD", SECRET)
    open_engine(url).close()
    fake.version = (401, "Unauthorized")
    with pytest.raises(EngineError, match=r"refuses the login \(401\)") as caught:
        open_engine(url)
    assert "STEELYARD_OPENSEARCH_USER" in caught.value.hint
    assert SECRET not in str(caught.value) + repr(caught.value.__cause__)
    with pytest.raises(InputError, match=r"unencrypted to search.example"):
        open_engine("opensearch://search.example/demo")
    monkeypatch.setenv("STEELYARD_OPENSEARCH_API_KEY", SECRET)
    with pytest.raises(InputError, match="two ways to log in"):
        open_engine(url)
    for name in ("USER", "PASSWORD"):
        monkeypatch.delenv(f"STEELYARD_OPENSEARCH_{name}")
    fake.version = (200, VERSION)
    open_engine(url).close()
    assert fake.logins == {"Basic YW5uOnMzY3JldC13b3Jk", f"ApiKey {SECRET}"}
    assert SECRET not in repr(Settings("h", password=SECRET, api_key=SECRET))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"version": {"number": "8.11.0"}}, "is not an OpenSearch .it says version 8.11.0."),
        ({"hello": 1}, "is not an OpenSearch"),
        ("text", "is not an OpenSearch"),
        ({"version": {"distribution": "opensearch", "number": "2.12.0"}}, "needs 2.13 or newer"),
        ({"version": {"distribution": "opensearch", "number": "x"}}, "its version is 'x'"),
    ],
)
def test_other_servers_are_refused(fake: Fake, answer: Any, message: str) -> None:
    fake.version = (200, answer)
    with pytest.raises(EngineError, match=message):
        connect(fake)


def test_nobody_there(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    fake.server.shutdown()
    fake.server.server_close()
    with caplog.at_level(logging.WARNING), pytest.raises(EngineError) as caught:
        open_engine(f"opensearch://127.0.0.1:{fake.port}/demo")
    assert f"no answer from 127.0.0.1:{fake.port}: " in caught.value.message
    assert "0x" not in caught.value.message
    assert caplog.records == []
    with pytest.raises(EngineError, match=r"no answer from no-such-host.invalid:9200"):
        open_engine("opensearch://no-such-host.invalid/demo")


def test_certificates_are_verified(fake: Fake, tmp_path: Path) -> None:
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
    with pytest.raises(EngineError, match=r"is not trusted: .*self.signed") as caught:
        connect(fake, tls=True)
    assert "STEELYARD_OPENSEARCH_CA" in caught.value.hint
    connect(fake, tls=True, ca=str(certificate)).close()
    with pytest.raises(InputError, match="no certificate that can be read"):
        connect(fake, tls=True, ca=str(key))
    with pytest.raises(InputError, match="no certificate that can be read"):
        connect(fake, tls=True, ca=str(tmp_path / "missing.pem"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("opensearch:///demo", "names no host"),
        ("opensearch://host:port/demo", "not the address of a server"),
        ("opensearch://host:99999/demo", "not the address of a server"),
        ("opensearch://ann:s3cret-word@host/demo", "carries credentials"),
        ("opensearch://host/a/b", "'a/b' cannot name an index"),
        ("opensearch://host/_all", "'_all' cannot name an index"),
        ("opensearch://host/*", "cannot name an index"),
        ("opensearch://host/?name=demo", "names the index by 'name='"),
    ],
)
def test_bad_urls(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_engine(url)
    assert SECRET not in str(caught.value)


def test_settings() -> None:
    assert parse_url("opensearchs://[::1]:9201/demo/").alias == "demo"
    found = read_settings("[::1]:9201", tls=True, environment={"STEELYARD_OPENSEARCH_CA": "x.pem"})
    assert (found.host, found.port, found.tls, found.ca) == ("::1", 9201, True, "x.pem")
    assert found.where == "[::1]:9201"
    assert read_settings("host", tls=False, environment={}).port == 9200
    for text in ("0", "soon", "inf", "nan"):
        with pytest.raises(InputError, match="STEELYARD_OPENSEARCH_TIMEOUT"):
            read_settings("host", tls=False, environment={"STEELYARD_OPENSEARCH_TIMEOUT": text})
