"""The asynchronous twin of ``Connection``, for one event loop."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from steelyard.errors import EngineError, needs_extra
from steelyard.plugin.backoff import Backoff
from steelyard.plugin.deadline import Deadline
from steelyard.plugin.opensearch.client import client_arguments
from steelyard.plugin.opensearch.requests import Request, Steps, judged, too_slow
from steelyard.plugin.opensearch.settings import Settings

T = TypeVar("T")


class AsyncConnection:
    """One server, on aiohttp.

    Args:
        settings: the server, whose version has been checked.
        backoff: how many retries there are and how long they wait.
    """

    def __init__(self, settings: Settings, backoff: Backoff | None = None) -> None:
        with needs_extra("opensearch"):
            import aiohttp  # noqa: F401  without it opensearch-py's error is about a name
            from opensearchpy import AIOHttpConnection, AsyncOpenSearch

        class Quiet(AIOHttpConnection):
            """Says nothing on the terminal: what fails is told by the error raised."""

            def log_request_fail(self, *arguments: Any, **named: Any) -> None:
                """Nothing."""

        self.settings = settings
        self.backoff = backoff or Backoff()
        self._client: Any = AsyncOpenSearch(connection_class=Quiet, **client_arguments(settings))

    async def run(self, steps: Steps[T], timeout: float | None = None) -> T:
        """See ``Connection.run``."""
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
                answer = await self.send(request, deadline)
            except EngineError as error:
                failed = error

    async def send(self, request: Request, deadline: Deadline) -> Any:
        """See ``Connection.send``."""
        outcome, again = await self._attempt(request, deadline)
        for seconds in self.backoff.waits():
            if not again or not deadline.allows(seconds):
                break
            await asyncio.sleep(seconds)
            outcome, again = await self._attempt(request, deadline)
        if isinstance(outcome, EngineError):
            raise outcome
        return outcome

    async def close(self) -> None:
        """Let go of the sockets."""
        await self._client.close()

    async def _attempt(self, request: Request, deadline: Deadline) -> tuple[Any, bool]:
        from opensearchpy import OpenSearchException

        left = deadline.within(self.settings.timeout)
        if left <= 0:
            return too_slow(request, self.settings.where, deadline), False
        try:
            answer = await self._client.transport.perform_request(
                request.method,
                request.path,
                params=dict(request.parameters),
                body=request.body,
                timeout=left,
            )
        except (OpenSearchException, AttributeError) as error:
            return judged(error, request, self.settings.where, deadline)
        return answer, request.busy is not None and request.busy(answer)
