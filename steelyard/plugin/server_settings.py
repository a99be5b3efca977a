"""What the settings of every server have in common: its address, a login, a time limit."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from steelyard.errors import InputError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def server_address(address: str, default_port: int, example: str) -> tuple[str, int]:
    """Host and port of a URL's ``host[:port]``.

    Raises:
        InputError: no host, or a bad port.
    """
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"not the address of a server: {address!r}: {error}") from error
    if not host:
        raise InputError("the engine URL names no host", example)
    return host, default_port if port is None else port


def read_login(
    environment: Mapping[str, str], user: str, password: str
) -> tuple[str | None, str | None]:
    """User and password from the variables of these names; two None where neither is set.

    Raises:
        InputError: only one of them is set.
    """
    found = environment.get(user) or None, environment.get(password) or None
    if (found[0] is None) != (found[1] is None):
        missing = user if found[0] is None else password
        raise InputError(f"only half a login: ${missing} is not set", f"set ${user}, ${password}")
    return found


def refuse_open_login(host: str, tls_scheme: str) -> None:
    """A login may travel unencrypted to this machine only.

    Raises:
        InputError: the host is another machine.
    """
    if host not in _LOOPBACK:
        raise InputError(
            f"a login would travel unencrypted to {host}", f"write {tls_scheme}:// instead"
        )


def read_seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    """A time limit from the variable of this name.

    Raises:
        InputError: not a number above 0.
    """
    text = environment.get(name) or str(default)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise InputError(f"${name} is {text!r}", "give seconds, more than 0")
    return seconds


def host_and_port(host: str, port: int) -> str:
    """A server as messages name it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
