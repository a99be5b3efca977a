"""Requests to a Milvus: retried where that helps, ended in time, and errors in words."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from steelyard.errors import EngineError, needs_extra
from steelyard.plugin.backoff import ONCE, Backoff
from steelyard.plugin.milvus.errors import engine_error, may_pass, quiet, too_slow
from steelyard.plugin.milvus.settings import Settings

MIN_VERSION = (2, 3)
"""The first with upsert, count(*) and COSINE."""

SPARSE_VERSION = (2, 4)
"""The first with sparse vectors. Older ones accept such a column, and store nothing in it."""

_CONNECT_SECONDS = 10.0
_THREADS = 32


class Deadline:
    """A time limit that several requests share; None is none."""

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self._end = None if timeout is None else time.monotonic() + timeout

    def left(self) -> float | None:
        """Seconds that are left, at least 0."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())


class Connection:
    """One server or one file; safe to use from many threads.

    Every request that Steelyard makes may be sent twice without harm, so lost connections are
    retried as busy servers are.

    Args:
        connect: makes the pymilvus client.
        where: the server as messages name it.
        timeout: seconds that one request may take; None is no limit.
        backoff: how retries wait.

    Raises:
        EngineError: it cannot be reached, or refuses the login.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        where: str,
        *,
        timeout: float | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.where, self.timeout = where, timeout
        self.backoff = backoff or Backoff()
        self._threads: ThreadPoolExecutor | None = None
        try:
            with quiet():
                self._client = connect()
        except Exception as error:  # pymilvus wraps what it cannot name
            raise engine_error(error, "reach the server", where, timeout) from None
        try:
            self.said_version = str(
                self.call("reach the server", "get_server_version", backoff=ONCE)
            )
        except BaseException:
            self.close()
            raise
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="steelyard-milvus")

    @property
    def client(self) -> Any:
        """The pymilvus client, for what makes no request: schemas, index parameters."""
        return self._client

    def call(
        self,
        action: str,
        method: str,
        *arguments: Any,
        deadline: Deadline | None = None,
        attempt_seconds: float | None = None,
        backoff: Backoff | None = None,
        **named: Any,
    ) -> Any:
        """One method of the client.

        Args:
            action: what is being done, for messages: "create x".
            method: its name.
            arguments, named: what it takes.
            deadline: for everything, retries too, kept whatever pymilvus does.
            attempt_seconds: of one attempt without a deadline; None is the connection's.
            backoff: None is the connection's.

        Raises:
            EngineError: the server refuses, cannot be reached in all attempts, or is too slow.
        """
        if deadline is None or deadline.timeout is None:
            each = self.timeout if attempt_seconds is None else attempt_seconds
            return self._attempts(action, method, arguments, named, Deadline(None), each, backoff)
        if self._threads is None:
            raise EngineError(f"cannot {action}: the engine is closed")
        # pymilvus may take longer than it was told: it reconnects and tries again by itself.
        future = self._threads.submit(
            self._attempts, action, method, arguments, named, deadline, None, backoff
        )
        try:
            return future.result(deadline.left())
        except FutureTimeoutError:
            future.cancel()
            raise too_slow(action, self.where, deadline.timeout) from None

    def _attempts(
        self,
        action: str,
        method: str,
        arguments: tuple[Any, ...],
        named: dict[str, Any],
        deadline: Deadline,
        attempt_seconds: float | None,
        backoff: Backoff | None,
    ) -> Any:
        for last in (backoff or self.backoff).within(deadline.left):
            left = deadline.left()
            seconds = attempt_seconds if left is None else left
            if left == 0:
                raise too_slow(action, self.where, deadline.timeout)
            options = {} if seconds is None else {"timeout": seconds}
            try:
                with quiet():
                    # Rate limits are left to our back-off, which has jitter.
                    return getattr(self._client, method)(
                        *arguments, **named, **options, retry_on_rate_limit=False
                    )
            except Exception as error:  # pymilvus raises many kinds, gRPC's own among them
                if last or not may_pass(error):
                    # Not chained: the cause may hold the request, and with it the login.
                    told = deadline.timeout or seconds
                    raise engine_error(error, action, self.where, told) from None
        raise AssertionError("Backoff.attempts is at least 1")

    def close(self) -> None:
        """Let go of the connection."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None
        with quiet():
            self._client.close()


def connect_server(settings: Settings, backoff: Backoff | None = None) -> Connection:
    """Connect to a server.

    Raises:
        EngineError: it cannot be reached, refuses the login, or is too old.
    """
    # Read once, when gRPC is imported: it would write a line on each handshake that fails.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    with needs_extra("milvus"):
        from pymilvus import MilvusClient
    connection = Connection(
        lambda: MilvusClient(**client_options(settings)),
        settings.where,
        timeout=settings.timeout,
        backoff=backoff,
    )
    number = connection.said_version
    try:
        if server_version(number) < MIN_VERSION:
            needed = ".".join(map(str, MIN_VERSION))
            raise EngineError(
                f"Milvus {number} at {settings.where}, Steelyard needs {needed} or newer",
                "upserts came then: upgrade the server",
            )
    except EngineError:
        connection.close()
        raise
    return connection


def client_options(settings: Settings) -> dict[str, Any]:
    """What ``MilvusClient`` and ``AsyncMilvusClient`` are made with."""
    options: dict[str, Any] = {
        "uri": f"{'https' if settings.tls else 'http'}://{settings.host}:{settings.port}",
        "token": settings.token or "",
        "db_name": settings.database or "",
        "timeout": min(settings.timeout, _CONNECT_SECONDS),
        "dedicated": True,  # shared ones are never closed, and are not told apart by their CA
    }
    if settings.ca:
        options["server_pem_path"] = settings.ca
    return options


def server_version(said: str) -> tuple[int, int]:
    """Major and minor number of what a server says, "v2.3.5-lite".

    Raises:
        EngineError: there is none in it.
    """
    found = re.match(r"v?(\d+)\.(\d+)", said)
    if found is None:
        raise EngineError(f"Milvus says that its version is {said!r}")
    return int(found[1]), int(found[2])
