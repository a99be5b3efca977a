"""A reverse proxy before a real node: it ends TLS, asks for a login, and makes trouble on demand.

It stands for what a plain node cannot be made to show: OpenSearch's security plugin is in no
package registry, and a healthy node is neither busy nor slow nor lost.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import trustme

_KEPT = ("content-type", "content-encoding", "accept", "accept-encoding")
_BACKLOG_SECONDS = 30.0


@dataclass
class Trouble:
    """What goes wrong with the requests whose path holds ``path``.

    Attributes:
        path: part of the path with its query string.
        status: answered instead of asking the node.
        cut: the node is asked, and the connection lost after so many bytes of its answer.
        silent: the node is asked, and its answer kept back until the proxy closes.
        times: how many requests it happens to.
        after: so many requests pass first.
        every: it happens to each so-manieth request only: with 2, what is repeated passes.
    """

    path: str = ""
    status: int = 0
    cut: int | None = None
    silent: bool = False
    times: int = 1
    after: int = 0
    every: int = 1
    met: int = 0

    def strikes(self, path: str) -> bool:
        """Whether it happens to this request; counts it."""
        if self.path not in path or self.times <= 0:
            return False
        if self.after > 0:
            self.after -= 1
            return False
        self.met += 1
        if (self.met - 1) % self.every:
            return False
        self.times -= 1
        return True


@dataclass
class Proxy:
    """What the tests see of a proxy.

    Attributes:
        upstream: base URL of the node.
        logins: values of the Authorization header that it lets in, and whether they may write;
            None asks for none.
        troubles: what goes wrong; the first that strikes does.
        port: where it listens, on 127.0.0.1.
        requests: method and path of what it was asked.
        statuses: what it answered to them, 0 for a lost connection.
        failed: TLS handshakes that came to nothing.
        closing: set when it goes.
    """

    upstream: str
    logins: dict[str, bool] | None = None
    troubles: list[Trouble] = field(default_factory=list)
    port: int = 0
    requests: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)

    def url(self, alias: str, *, host: str = "localhost", tls: bool = True) -> str:
        """The engine's URL through the proxy."""
        return f"opensearch{'s' * tls}://{host}:{self.port}/{alias}"

    def trouble(self, path: str) -> Trouble | None:
        with self.lock:
            return next((each for each in self.troubles if each.strikes(path)), None)

    def told(self, request: str, status: int) -> None:
        with self.lock:
            self.requests.append(request)
            self.statuses.append(status)


def basic(user: str, password: str) -> str:
    """The value of a header that logs in."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """A server's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@contextmanager
def running_proxy(
    upstream: str,
    *,
    tls: ssl.SSLContext | None = None,
    logins: dict[str, bool] | None = None,
) -> Iterator[Proxy]:
    """A proxy in threads of its own; it is gone afterwards.

    Args:
        upstream: base URL of the node.
        tls: None is plain HTTP.
        logins: see ``Proxy``.
    """
    proxy = Proxy(upstream, logins)
    server = _Server(proxy, tls)
    proxy.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, proxy: Proxy, tls: ssl.SSLContext | None) -> None:
        self.proxy, self.tls = proxy, tls
        super().__init__(("127.0.0.1", 0), _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """The handshake is made here, in the connection's thread: it may fail or never come."""
        if self.tls is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(_BACKLOG_SECONDS)
        try:
            secured = self.tls.wrap_socket(request, server_side=True)
        except OSError as error:  # also ssl.SSLError
            self.proxy.failed.append(str(error))
            return
        with secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.proxy = self.server.proxy
        self.node = http.client.HTTPConnection(urlsplit(self.proxy.upstream).netloc)

    def finish(self) -> None:
        self.node.close()
        with suppress(OSError):
            super().finish()

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        refused = self.refusal()
        trouble = None if refused else self.proxy.trouble(self.path)
        if refused:
            self.answer(*refused)
        elif trouble and trouble.status:
            self.answer(trouble.status, _problem("unavailable", "trouble on demand"))
        else:
            self.forward(body, trouble)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815

    def refusal(self) -> tuple[int, bytes] | None:
        """What OpenSearch's security plugin would say to this login."""
        logins = self.proxy.logins
        if logins is None:
            return None
        login = self.headers.get("Authorization", "")
        if login not in logins:
            return 401, b"Unauthorized"
        reads = self.command in ("GET", "HEAD") or "_search" in self.path
        if logins[login] or reads:
            return None
        return 403, _problem("security_exception", "no permissions for [indices:data/write/bulk]")

    def forward(self, body: bytes, trouble: Trouble | None) -> None:
        headers = {name: value for name, value in self.headers.items() if name.lower() in _KEPT}
        self.node.request(self.command, self.path, body or None, headers)
        response = self.node.getresponse()
        data = response.read()
        if trouble and trouble.silent:
            self.proxy.told(f"{self.command} {self.path}", 0)
            self.proxy.closing.wait()
            self.close_connection = True
            return
        kind = response.headers.get("Content-Type", "application/json")
        self.answer(response.status, data, kind=kind, cut=trouble.cut if trouble else None)

    def answer(
        self, status: int, data: bytes, *, kind: str = "application/json", cut: int | None = None
    ) -> None:
        self.proxy.told(f"{self.command} {self.path}", status if cut is None else 0)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="OpenSearch Security"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data if cut is None else data[:cut])
        if cut is not None:
            self.close_connection = True

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""


def _problem(type_: str, reason: str) -> bytes:
    return json.dumps({"error": {"type": type_, "reason": reason}}).encode()
