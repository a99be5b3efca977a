"""Where a Milvus is and how to log in: the URL says the first, the environment the second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from steelyard.errors import InputError
from steelyard.plugin.server_settings import (
    host_and_port,
    read_login,
    read_seconds,
    refuse_open_login,
    server_address,
)

USER, PASSWORD = "STEELYARD_MILVUS_USER", "STEELYARD_MILVUS_PASSWORD"
TOKEN = "STEELYARD_MILVUS_TOKEN"  # noqa: S105
CA = "STEELYARD_MILVUS_CA"
DATABASE = "STEELYARD_MILVUS_DATABASE"
TIMEOUT = "STEELYARD_MILVUS_TIMEOUT"

DEFAULT_PORT = 19530
DEFAULT_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Settings:
    """One server.

    Attributes:
        host, port: of its gRPC interface.
        tls: encrypted, the certificate verified.
        token: ``user:password`` or an API key; None where there is nothing to log in to.
        ca: file of the certificates to trust; None is the system's.
        database: of the server; None is its default one.
        timeout: seconds that one request may take.
    """

    host: str
    port: int = DEFAULT_PORT
    tls: bool = False
    token: str | None = field(default=None, repr=False)
    ca: str | None = None
    database: str | None = None
    timeout: float = DEFAULT_TIMEOUT

    @property
    def where(self) -> str:
        """The server as messages name it."""
        return host_and_port(self.host, self.port)


def read_settings(address: str, *, tls: bool, environment: Mapping[str, str]) -> Settings:
    """Join ``host[:port]`` of a URL with what the environment says.

    Raises:
        InputError: no host, a bad port or timeout, half a login, a login over an unencrypted
            connection to another machine, or a file of certificates that is none.
    """
    host, port = server_address(address, DEFAULT_PORT, "milvus://localhost:19530/name")
    if ":" in host:
        # pymilvus joins host and port without the brackets, and then finds no such host.
        raise InputError(f"pymilvus cannot connect to the address [{host}]", "give a host name")
    user, password = read_login(environment, USER, PASSWORD)
    token = environment.get(TOKEN) or None
    if token and user:
        raise InputError("two ways to log in are set", f"unset ${TOKEN}, or ${USER}")
    if user and ":" in user:
        raise InputError(f"${USER} has a ':' in it", "Milvus takes no such user name")
    if (token or user) and not tls:
        refuse_open_login(host, "milvuss")
    return Settings(
        host=host,
        port=port,
        tls=tls,
        token=f"{user}:{password}" if user else token,
        ca=_certificates(environment.get(CA) or None) if tls else None,
        database=environment.get(DATABASE) or None,
        timeout=read_seconds(environment, TIMEOUT, DEFAULT_TIMEOUT),
    )


def _certificates(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        readable = "BEGIN CERTIFICATE" in Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        readable = False
    if not readable:
        raise InputError(
            f"${CA} names {path}, which holds no certificate that can be read", "name a PEM file"
        )
    return path
