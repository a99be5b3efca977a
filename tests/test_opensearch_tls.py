"""TLS and logins before a real node: a private authority, a password, an API key, refusals."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import trustme

from steelyard.errors import EngineError
from steelyard.plugin.abilities import OpensAsync
from steelyard.plugin.engine import Engine, Generation
from steelyard.plugin.urls import open_engine
from steelyard.types import DenseVectors
from tests.conftest import Small
from tests.servers.opensearch_node import ask
from tests.servers.opensearch_words import Words
from tests.servers.tls_proxy import Proxy, basic, running_proxy, server_context
from tests.test_cli import run
from tests.test_milvus_lite import documents, generation

pytest_plugins = ["tests.servers.opensearch", "tests.servers.opensearch_alias"]
pytestmark = [pytest.mark.opensearch]

USER, PASSWORD = "ann", "pass:w0rd-that-is-secret é"
READER, KEY = "reader", "a2V5OnRoYXQtaXMtc2VjcmV0"
WRONG = "wr0ng-but-still-secret"
LOGINS = {basic(USER, PASSWORD): True, basic(READER, PASSWORD): False, f"ApiKey {KEY}": True}
SECRETS = (
    PASSWORD,
    KEY,
    WRONG,
    *(
        basic(user, password).removeprefix("Basic ")
        for user in (USER, READER)
        for password in (PASSWORD, WRONG)
    ),
    base64.b64encode(PASSWORD.encode()).decode(),
)
ENVIRONMENT = {
    name: f"STEELYARD_OPENSEARCH_{name}" for name in ("USER", "PASSWORD", "API_KEY", "CA")
}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.fixture(scope="module")
def pem(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="module")
def proxy(opensearch_url: str, authority: trustme.CA) -> Iterator[Proxy]:
    """Before the shared node, with a certificate for this machine and three logins."""
    context = server_context(authority.issue_cert("localhost", "127.0.0.1"))
    with running_proxy(opensearch_url, tls=context, logins=LOGINS) as made:
        yield made


Login = Callable[..., None]


@pytest.fixture
def login(pem: Path, monkeypatch: pytest.MonkeyPatch) -> Login:
    """Sets the environment variables given, and the right authority; unsets the others."""

    def setting(**values: str) -> None:
        for variable in ENVIRONMENT.values():
            monkeypatch.delenv(variable, raising=False)
        for name, value in {"CA": str(pem), **values}.items():
            monkeypatch.setenv(ENVIRONMENT[name], value)

    return setting


def refusal(
    url: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> EngineError:
    """How opening an engine fails; no secret is told in any way."""
    caplog.set_level(logging.DEBUG)
    with pytest.raises(EngineError) as caught:
        open_engine(url)
    error = caught.value
    told = [
        str(error),
        repr(error),
        error.hint,
        "".join(traceback.format_exception(error)),
        caplog.text,
        *capfd.readouterr(),
    ]
    assert not [secret for secret in SECRETS for text in told if secret in text]
    assert error.hint
    return error


def fill(engine: Engine, alias: str) -> None:
    made = generation(f"{alias}_20260101000001_00000001")
    engine.create(made)
    engine.upsert(made, documents(40))
    engine.seal(made)
    engine.publish(made)


async def awaited(engine: Engine, found: Generation, dense: DenseVectors) -> list[list[str]]:
    """The same search by the asynchronous client, which does TLS in its own way."""
    assert isinstance(engine, OpensAsync)
    index = await engine.open_async(found)
    try:
        return [answer.ids for answer in await index.dense.search(dense, 7)]
    finally:
        await engine.close_async()


@pytest.mark.parametrize("how", [{"USER": USER, "PASSWORD": PASSWORD}, {"API_KEY": KEY}])
def test_an_index_is_written_and_read_through_tls(
    proxy: Proxy, login: Login, alias: str, url: str, how: dict[str, str], opensearch_url: str
) -> None:
    login(**how)
    engine = open_engine(proxy.url(alias), vocabulary=Words())
    before = len(proxy.requests)
    try:
        fill(engine, alias)
        found = engine.resolve()
        assert found is not None
        dense = documents(40).dense[:5]
        through = [answer.ids for answer in engine.open(found).dense.search(dense, 7)]
        assert asyncio.run(awaited(engine, found, dense)) == through
    finally:
        engine.close()
    assert set(proxy.statuses[before:]) <= {200, 201, 404}
    assert ask(opensearch_url, "GET", f"/{alias}/_count")["count"] == 40
    login()
    plain = open_engine(url)
    try:
        assert [each.ids for each in plain.open(found).dense.search(dense, 7)] == through
    finally:
        plain.close()


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"USER": USER, "PASSWORD": WRONG},
        {"USER": "nobody", "PASSWORD": PASSWORD},
        {"API_KEY": WRONG},
    ],
)
def test_a_login_that_is_refused(
    proxy: Proxy,
    login: Login,
    how: dict[str, str],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    login(**how)
    error = refusal(proxy.url("demo"), caplog, capfd)
    assert "the server refuses the login (401)" in error.message
    assert "$STEELYARD_OPENSEARCH_USER and $STEELYARD_OPENSEARCH_PASSWORD" in error.hint
    assert proxy.statuses[-1] == 401


def test_a_login_that_may_read_only(
    proxy: Proxy, login: Login, alias: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    login(USER=READER, PASSWORD=PASSWORD)
    engine = open_engine(proxy.url(alias), vocabulary=Words())
    try:
        assert engine.resolve() is None
        with pytest.raises(EngineError, match=r"the login may not do that \(403\)") as caught:
            engine.create(generation(f"{alias}_20260101000001_00000001"))
    finally:
        engine.close()
    assert "rights" in caught.value.hint
    told = str(caught.value) + caplog.text
    assert not [secret for secret in SECRETS if secret in told]


def test_certificates_that_are_not_trusted(
    proxy: Proxy,
    login: Login,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    before = len(proxy.requests)
    for authority in (str(other), ""):  # another one, and the system's
        login(**{"USER": USER, "PASSWORD": PASSWORD, "CA": authority})
        error = refusal(proxy.url("demo"), caplog, capfd)
        assert f"the certificate of localhost:{proxy.port} is not trusted" in error.message
        assert "$STEELYARD_OPENSEARCH_CA" in error.hint
    assert len(proxy.requests) == before, "the login was sent before the certificate was checked"


@pytest.mark.parametrize(
    ("names", "day", "message", "hint"),
    [
        (["search.example"], 1, "localhost", "as the certificate names it"),
        (["localhost"], -1, "expired", "renew"),
    ],
)
def test_a_certificate_of_another_name_or_time(
    opensearch_url: str,
    authority: trustme.CA,
    login: Login,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    names: list[str],
    day: int,
    message: str,
    hint: str,
) -> None:
    login(USER=USER, PASSWORD=PASSWORD)
    until = datetime.now(timezone.utc) + timedelta(days=day)
    certificate = authority.issue_cert(
        *names, not_before=until - timedelta(days=30), not_after=until
    )
    with running_proxy(opensearch_url, tls=server_context(certificate), logins=LOGINS) as bad:
        error = refusal(bad.url("demo"), caplog, capfd)
        assert bad.requests == []
    assert f"the certificate of localhost:{bad.port} is not trusted" in error.message
    assert message in error.message.split("is not trusted")[1]
    assert hint in error.hint


def test_tls_and_plain_http_mixed_up(
    proxy: Proxy,
    opensearch_url: str,
    login: Login,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    login(USER=USER, PASSWORD=PASSWORD)
    error = refusal(proxy.url("demo", tls=False), caplog, capfd)
    assert f"no answer from localhost:{proxy.port}" in error.message
    assert "opensearch:// against opensearchs://" in error.hint
    port = opensearch_url.rsplit(":", 1)[1]
    error = refusal(f"opensearchs://127.0.0.1:{port}/demo", caplog, capfd)
    assert f"127.0.0.1:{port}" in error.message
    assert "SSL" in error.message
    assert "opensearch:// against opensearchs://" in error.hint


def test_from_the_command_line(
    small: Small, proxy: Proxy, login: Login, alias: str, url: str, tmp_path: Path
) -> None:
    login(USER=USER, PASSWORD=PASSWORD)
    to = ["--pack", small.pack, "--to", proxy.url(alias)]
    report, hits = tmp_path / "index.json", tmp_path / "hits.json"
    told = []
    for command in (["index", small.corpus, "--json", report],
                    ["search", "heart failure", "--json", hits]):  # fmt: skip
        done = run(*command, *to)
        assert done.returncode == 0, done.stderr
        told += [done.stdout, done.stderr]
    assert json.loads(report.read_text(encoding="utf-8"))["indexed"] == 120
    through = json.loads(hits.read_text(encoding="utf-8"))
    told += [report.read_text(encoding="utf-8"), hits.read_text(encoding="utf-8")]
    login()
    done = run("search", "heart failure", "--pack", small.pack, "--to", url, "--json", hits)
    assert done.returncode == 0, done.stderr
    assert json.loads(hits.read_text(encoding="utf-8"))["hits"] == through["hits"]
    login(USER=USER, PASSWORD=WRONG)
    for more in ({}, {"STEELYARD_DEBUG": "1"}):
        done = run("search", "heart", *to, "--json", tmp_path / "none.json", env=more)
        assert done.returncode == 4
        assert "refuses the login (401)" in done.stderr
        assert "fix: set $STEELYARD_OPENSEARCH_USER" in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "none.json").exists()
        told += [done.stdout, done.stderr]
    assert not [secret for secret in SECRETS for text in told if secret in text]
