"""One request to a local server, without its client."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit


class RefusedError(Exception):
    """The server answered with an error.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: int, answer: str) -> None:
        super().__init__(f"{status}: {answer[:2000]}")
        self.status = status


def ask(url: str, method: str, path: str, body: Any = None, *, seconds: float = 120.0) -> Any:
    """One request; JSON there and back.

    Args:
        url: base URL of the server.
        method: of HTTP.
        path: with its query string.
        body: a JSON value; bytes and strings are sent as they are.
        seconds: to wait at most.

    Raises:
        RefusedError: any status but 2xx.
    """
    data = body if body is None or isinstance(body, (bytes, str)) else json.dumps(body)
    if isinstance(data, str):
        data = data.encode("utf-8")
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=seconds)
    try:
        connection.request(method, path, data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read().decode("utf-8")
    finally:
        connection.close()
    if not 200 <= response.status < 300:
        raise RefusedError(response.status, answer)
    return json.loads(answer) if answer else None
