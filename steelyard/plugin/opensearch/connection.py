"""Requests to an OpenSearch: retried where that helps, and errors in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from steelyard.errors import EngineError, needs_extra
from steelyard.plugin.backoff import ONCE, Backoff
from steelyard.plugin.deadline import Deadline
from steelyard.plugin.opensearch.client import client_arguments
from steelyard.plugin.opensearch.requests import Request, Steps, judged, too_slow
from steelyard.plugin.opensearch.settings import Settings

T = TypeVar("T")

MIN_VERSION = (2, 13)
"""The first whose k-NN has inner products on Lucene."""


class Connection:
    """One server; safe to use from many threads.

    Every request that Steelyard makes may be sent twice without harm, so lost connections are
    retried as busy servers are.

    Args:
        settings: the server.
        backoff: how retries wait.

    Attributes:
        version: of the server, major and minor.

    Raises:
        EngineError: it cannot be reached, refuses the login, or is too old.
    """

    def __init__(self, settings: Settings, backoff: Backoff | None = None) -> None:
        with needs_extra("opensearch"):
            from opensearchpy import OpenSearch, Urllib3HttpConnection

        class Quiet(Urllib3HttpConnection):
            """Says nothing on the terminal: what fails is told by the error raised."""

            def log_request_fail(self, *arguments: Any, **named: Any) -> None:
                """Nothing."""

        self.settings = settings
        self.backoff = backoff or Backoff()
        self._client: Any = OpenSearch(connection_class=Quiet, **client_arguments(settings))
        try:
            self.version = self._check_version()
        except BaseException:
            self.close()
            raise

    def request(
        self,
        action: str,
        method: str,
        path: str,
        body: Any = None,
        *,
        parameters: Mapping[str, Any] | None = None,
        missing_ok: bool = False,
        backoff: Backoff | None = None,
    ) -> Any:
        """One request; JSON there and back: see ``Request`` and ``send``."""
        request = Request(action, method, path, body, parameters or {}, missing_ok)
        return self.send(request, Deadline(), backoff)

    def run(self, steps: Steps[T], timeout: float | None = None) -> T:
        """A call, request by request; what fails is raised inside it, where it may clean up.

        Args:
            steps: the call.
            timeout: seconds for all of it.
        """
        deadline = Deadline(timeout)
        answer: Any = None
        failed: EngineError | None = None
        while True:
            try:
                request = steps.send(answer) if failed is None else steps.throw(failed)
            except StopIteration as done:
                result: T = done.value
                return result
            answer = failed = None
            try:
                answer = self.send(request, deadline)
            except EngineError as error:
                failed = error

    def send(self, request: Request, deadline: Deadline, backoff: Backoff | None = None) -> Any:
        """One request, again while the server is busy or away.

        Args:
            request: what to send.
            deadline: for all attempts.
            backoff: None is the connection's.

        Raises:
            EngineError: the server refuses, cannot be reached in all attempts, or is too slow.
        """
        backoff = backoff or self.backoff
        outcome, again = self._attempt(request, deadline)
        for seconds in backoff.waits():
            if not again or not deadline.allows(seconds):
                break
            backoff.wait(seconds)
            outcome, again = self._attempt(request, deadline)
        if isinstance(outcome, EngineError):
            raise outcome
        return outcome

    def close(self) -> None:
        """Let go of the sockets."""
        self._client.close()

    def _attempt(self, request: Request, deadline: Deadline) -> tuple[Any, bool]:
        """The answer or an error, and whether another attempt may help."""
        from opensearchpy import OpenSearchException
        from urllib3 import Timeout

        left = deadline.within(self.settings.timeout)
        if left <= 0:
            return too_slow(request, self.settings.where, deadline), False
        try:
            answer = self._client.transport.perform_request(
                request.method,
                request.path,
                params=dict(request.parameters),
                body=request.body,
                # Connecting and reading together.
                timeout=Timeout(total=left),
            )
        except (OpenSearchException, AttributeError) as error:
            return judged(error, request, self.settings.where, deadline)
        return answer, request.busy is not None and request.busy(answer)

    def _check_version(self) -> tuple[int, int]:
        told = self.request("reach the server", "GET", "/", backoff=ONCE)
        version = told.get("version", {}) if isinstance(told, dict) else {}
        number = str(version.get("number", ""))
        if version.get("distribution") != "opensearch":
            raise EngineError(
                f"{self.settings.where} is not an OpenSearch"
                + (f" (it says version {number})" if number else ""),
                "Elasticsearch is another product; in OpenSearch, switch "
                "compatibility.override_main_response_version off",
            )
        try:
            major, minor = (int(part) for part in number.split(".")[:2])
        except ValueError:
            raise EngineError(f"OpenSearch says that its version is {number!r}") from None
        if (major, minor) < MIN_VERSION:
            needed = ".".join(map(str, MIN_VERSION))
            raise EngineError(
                f"OpenSearch {number} at {self.settings.where}, Steelyard needs {needed} or newer",
                "inner products on Lucene came then: upgrade the cluster",
            )
        return major, minor
