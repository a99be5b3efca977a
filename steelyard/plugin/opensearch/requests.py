"""Requests as values, and calls as sequences of them: the same for threads and for asyncio.

A call is a generator: it yields requests, is sent their answers, and returns its result. A request
that fails raises its error at the ``yield``. How the requests travel is the connection's business.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from steelyard.errors import EngineError, TransientEngineError, first_line
from steelyard.plugin.deadline import Deadline
from steelyard.plugin.opensearch.refusals import refusal, untrusted

RETRIED = frozenset({429, 502, 503, 504})
"""Statuses of a server that is busy or restarting."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request; it may be sent twice without harm.

    Attributes:
        action: what is being done, for messages: "create x".
        method, path: of HTTP.
        body: a JSON value, or text that is sent as it is.
        parameters: of the query string.
        missing_ok: a 404 gives None.
        busy: tells from an answer whether a part of it says that the server is busy.
    """

    action: str
    method: str
    path: str
    body: Any = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    missing_ok: bool = False
    busy: Callable[[Any], bool] | None = None


T = TypeVar("T")
Steps: TypeAlias = Generator[Request, Any, T]


def judged(
    error: Exception, request: Request, where: str, deadline: Deadline
) -> tuple[EngineError | None, bool]:
    """What the client's exception means: an error or the answer None, and whether to try again.

    Args:
        error: what opensearch-py raised.
        request: that failed.
        where: the server.
        deadline: of the call.
    """
    from opensearchpy import TransportError

    action = request.action
    if not isinstance(error, TransportError):
        # Also an AttributeError: the client's own, on a refusal whose JSON is no object.
        return _because(EngineError(f"cannot {action}: {first_line(error)}"), error), False
    status = error.status_code
    if status == 404 and request.missing_ok:
        return None, False
    if isinstance(status, int):
        said = refusal(action, status, error.info or error.error)
        if status in RETRIED:
            said = TransientEngineError(said.message, said.hint)
        return _because(said, error), status in RETRIED
    if "CERTIFICATE" in str(error.error).upper():
        return _because(untrusted(where, _reason(error)), error), False
    if not deadline.allows(0):
        return _because(too_slow(request, where, deadline), error), False
    lost = TransientEngineError(
        f"cannot {action}: no answer from {where}: {_reason(error)}",
        "check that the server runs, the address, and opensearch:// against opensearchs://",
    )
    return _because(lost, error), True


def too_slow(request: Request, where: str, deadline: Deadline) -> EngineError:
    """The deadline is over."""
    return TransientEngineError(
        f"cannot {request.action}: no answer from {where} in {deadline.seconds:g} s",
        "allow more time, or look at the cluster's load",
    )


def _because(error: EngineError, cause: Exception) -> EngineError:
    error.__cause__ = cause
    return error


def _reason(error: Any) -> str:
    """The innermost cause; urllib3 puts object addresses around it."""
    text = str(getattr(error, "error", error))
    return text.rsplit(">: ", 1)[-1].splitlines()[0][:200] if text else type(error).__name__
