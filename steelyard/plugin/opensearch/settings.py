"""Where an OpenSearch is and how to log in: the URL says the first, the environment the second."""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

from steelyard.errors import InputError
from steelyard.plugin.server_settings import (
    host_and_port,
    read_login,
    read_seconds,
    refuse_open_login,
    server_address,
)

USER, PASSWORD = "STEELYARD_OPENSEARCH_USER", "STEELYARD_OPENSEARCH_PASSWORD"
API_KEY = "STEELYARD_OPENSEARCH_API_KEY"
CA = "STEELYARD_OPENSEARCH_CA"
TIMEOUT = "STEELYARD_OPENSEARCH_TIMEOUT"
REPLICAS = "STEELYARD_OPENSEARCH_REPLICAS"

DEFAULT_PORT = 9200
DEFAULT_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Settings:
    """One server.

    Attributes:
        host, port: of its HTTP interface.
        tls: encrypted, the certificate verified.
        user, password, api_key: how to log in; None where there is nothing to log in to.
        ca: file of the certificates to trust; None is the system's.
        timeout: seconds that one request may take.
        replicas: of a generation that is loaded, a number or a range such as ``0-all``; None: as
            the generation before, or as the cluster gives them.

    Raises:
        InputError: an API key that no header can hold; HTTP clients print it when they refuse it.
    """

    host: str
    port: int = DEFAULT_PORT
    tls: bool = False
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)
    ca: str | None = None
    timeout: float = DEFAULT_TIMEOUT
    replicas: str | None = None

    def __post_init__(self) -> None:
        if self.api_key and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise InputError(
                f"the API key in ${API_KEY} has a character that cannot be sent (a line end?)",
                "give the key alone: printable ASCII characters",
            )

    @property
    def where(self) -> str:
        """The server as messages name it."""
        return host_and_port(self.host, self.port)

    @property
    def authorization(self) -> str | None:
        """The value of the header that logs in; the clients' own would send é as Latin-1."""
        if self.api_key:
            return f"ApiKey {self.api_key}"
        if self.user:
            login = f"{self.user}:{self.password}".encode()
            return f"Basic {base64.b64encode(login).decode('ascii')}"
        return None

    def ssl_context(self) -> ssl.SSLContext | None:
        """Certificates are always verified; None without TLS.

        Raises:
            InputError: the file of certificates cannot be read.
        """
        if not self.tls:
            return None
        try:
            return ssl.create_default_context(cafile=self.ca)
        except OSError as error:  # also ssl.SSLError
            raise InputError(
                f"${CA} names {self.ca}, which holds no certificate that can be read",
                "name a PEM file",
            ) from error


def read_settings(address: str, *, tls: bool, environment: Mapping[str, str]) -> Settings:
    """Join ``host[:port]`` of a URL with what the environment says.

    Raises:
        InputError: no host, a bad port, timeout or number of replicas, half a login, an API key
            with a line end, or a login over an unencrypted connection to another machine.
    """
    host, port = server_address(address, DEFAULT_PORT, "opensearch://localhost:9200/name")
    user, password = read_login(environment, USER, PASSWORD)
    api_key = environment.get(API_KEY) or None
    if api_key and user:
        raise InputError("two ways to log in are set", f"unset ${API_KEY}, or ${USER}")
    if (api_key or user) and not tls:
        refuse_open_login(host, "opensearchs")
    return Settings(
        host=host,
        port=port,
        tls=tls,
        user=user,
        password=password,
        api_key=api_key,
        ca=environment.get(CA) or None,
        timeout=read_seconds(environment, TIMEOUT, DEFAULT_TIMEOUT),
        replicas=_replicas(environment),
    )


def _replicas(environment: Mapping[str, str]) -> str | None:
    text = environment.get(REPLICAS) or None
    if text is not None and not re.fullmatch(r"\d{1,3}(-(\d{1,3}|all))?", text):
        raise InputError(f"${REPLICAS} is {text!r}", "give a number, or a range such as 0-all")
    return text
