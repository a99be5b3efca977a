"""Requests to an OpenSearch: retried where that helps, and errors in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steelyard.errors import EngineError, first_line, needs_extra
from steelyard.plugin.opensearch.backoff import ONCE, Backoff
from steelyard.plugin.opensearch.refusals import refusal, untrusted
from steelyard.plugin.opensearch.settings import Settings

MIN_VERSION = (2, 13)
"""The first whose k-NN has inner products on Lucene."""

RETRIED = frozenset({429, 502, 503, 504})
"""Statuses of a server that is busy or restarting."""

_POOL = 16


class Connection:
    """One server; safe to use from many threads.

    Every request that Steelyard makes may be sent twice without harm, so lost connections are
    retried as busy servers are.

    Args:
        settings: the server.
        backoff: how retries wait.

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
        login = settings.authorization
        self._client: Any = OpenSearch(
            hosts=[{"host": settings.host, "port": settings.port}],
            connection_class=Quiet,
            use_ssl=settings.tls,
            ssl_context=settings.ssl_context(),
            headers={"Authorization": login} if login else None,
            timeout=settings.timeout,
            max_retries=0,
            pool_maxsize=_POOL,
        )
        try:
            self._check_version()
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
        """One request; JSON there and back.

        Args:
            action: what is being done, for messages: "create x".
            method, path: of HTTP.
            body: a JSON value, or a string that is sent as it is.
            parameters: of the query string.
            missing_ok: a 404 gives None.
            backoff: None is the connection's.

        Raises:
            EngineError: the server refuses, or cannot be reached in all attempts.
        """
        from opensearchpy import OpenSearchException, TransportError

        for last in backoff or self.backoff:
            try:
                return self._client.transport.perform_request(
                    method, path, params=dict(parameters or {}), body=body
                )
            except TransportError as error:
                status = error.status_code
                if status == 404 and missing_ok:
                    return None
                if isinstance(status, int):
                    if status in RETRIED and not last:
                        continue
                    raise refusal(action, status, error.info or error.error) from error
                if "CERTIFICATE" in str(error.error).upper():
                    raise untrusted(self.settings.where, _reason(error)) from error
                if last:
                    raise EngineError(
                        f"cannot {action}: no answer from {self.settings.where}: {_reason(error)}",
                        "check that the server runs, the address, and opensearch:// against "
                        "opensearchs://",
                    ) from error
            except (OpenSearchException, AttributeError) as error:
                # AttributeError: the client's own, on a refusal whose JSON is no object.
                raise EngineError(f"cannot {action}: {first_line(error)}") from error
        raise AssertionError("Backoff.attempts is at least 1")

    def close(self) -> None:
        """Let go of the sockets."""
        self._client.close()

    def _check_version(self) -> None:
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


def _reason(error: Any) -> str:
    """The innermost cause; urllib3 puts object addresses around it."""
    text = str(getattr(error, "error", error))
    return text.rsplit(">: ", 1)[-1].splitlines()[0][:200] if text else type(error).__name__
