"""Fixtures of real Milvus servers.

A test module that wants them says ``pytest_plugins = ["tests.servers.milvus"]``: one server a test
run, shared by all modules that say so.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from steelyard.local_servers.errors import ServerError
from steelyard.local_servers.milvus import MilvusProcess, milvus_process
from steelyard.plugin.engine import Engine
from steelyard.plugin.urls import open_engine

_ALIASES = count()


@pytest.fixture(scope="session")
def milvus_server() -> Iterator[MilvusProcess]:
    """A server with nothing in it."""
    try:
        with milvus_process() as server:
            yield server
    except ServerError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def milvus_address(milvus_server: MilvusProcess) -> str:
    """``127.0.0.1:port`` of its gRPC interface."""
    return milvus_server.address


@pytest.fixture
def milvus_alias() -> str:
    return f"mv{next(_ALIASES)}"


@pytest.fixture
def milvus_client(milvus_address: str) -> Iterator[Any]:
    """pymilvus's own."""
    from pymilvus import MilvusClient

    client = MilvusClient(f"http://{milvus_address}", dedicated=True)
    yield client
    client.close()


@pytest.fixture
def milvus_url(milvus_address: str, milvus_alias: str, milvus_client: Any) -> Iterator[str]:
    """An alias of the test's own; its collections are gone afterwards."""
    before = set(milvus_client.list_collections())
    yield f"milvus://{milvus_address}/{milvus_alias}"
    for name in set(milvus_client.list_collections()) - before:
        for alias in milvus_client.list_aliases(name)["aliases"]:
            milvus_client.drop_alias(alias)
        milvus_client.drop_collection(name)


@pytest.fixture
def milvus_engine(milvus_url: str) -> Iterator[Engine]:
    engine = open_engine(milvus_url)
    yield engine
    engine.close()


@dataclass(frozen=True)
class Secured:
    """A server that speaks TLS only and asks for a login.

    Attributes:
        address: of its gRPC interface.
        authority: PEM file that makes it trusted.
        stranger: PEM file of somebody else.
    """

    address: str
    authority: Path
    stranger: Path


@pytest.fixture(scope="session")
def secured_milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A server of its own; the only user is root."""
    folder = tmp_path_factory.mktemp("milvus-tls")
    authority, key = _certificate(folder, "server")
    stranger, _ = _certificate(folder, "stranger")
    try:
        with milvus_process(authorization=True, certificate=authority, key=key) as server:
            yield Secured(server.address, authority, stranger)
    except ServerError as error:
        pytest.fail(str(error), pytrace=False)


def _certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Signed by itself, for 127.0.0.1."""
    key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
    openssl = shutil.which("openssl")
    assert openssl is not None
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key
