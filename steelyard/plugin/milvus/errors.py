"""What pymilvus raises, in words; and pymilvus kept from printing it as well."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from steelyard.errors import EngineError, TransientEngineError
from steelyard.plugin.milvus.settings import CA, PASSWORD, TOKEN, USER

_CONNECT_FAILED = 2
_RETRIED = frozenset({2, 4, 8})
"""Service unavailable, too many requests, rate limit. (1 is also any error of pymilvus's own.)"""

_INPUT = frozenset({1, 1100, 1101, 1800, 1801, 1802, 1803, 1804})
"""Invalid parameter, missing parameter, errors of rows; 1 is what Milvus Lite says of anything."""

_HINTS = {
    3: "the server is short of memory: give it more, or wait",
    9: "the server's quota is full: make room, or raise the quota",
    100: "it may have been dropped just now: try again",
    101: "somebody released it from memory: open the index again",
}

_ours: ContextVar[bool] = ContextVar("steelyard_milvus_call", default=False)


class TooSlowError(TransientEngineError):
    """No answer in the time that was given."""


class BadRowsError(EngineError):
    """A request that Milvus refuses for what is in it, as far as it tells."""


class _Others(logging.Filter):
    """Lets through what is not said during a call of ours."""

    def filter(self, record: logging.LogRecord) -> bool:
        del record
        return not _ours.get()


_OTHERS = _Others()


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, pymilvus says nothing on the terminal: what fails is told by the error raised.

    Its handlers get a filter that drops only what is said inside such a block.
    """
    for handler in logging.getLogger("pymilvus").handlers:
        handler.addFilter(_OTHERS)  # once: a filter that is there is not added again
    before = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(before)


def may_pass(error: Exception) -> bool:
    """Whether the same request may succeed a little later."""
    code = _grpc_code(error)
    if code is not None:
        return code == "UNAVAILABLE" and not _untrusted(_reason(error))
    if getattr(error, "retriable", False):
        return True
    return getattr(error, "code", None) in _RETRIED and not _untrusted(_reason(error))


def engine_error(error: Exception, action: str, where: str, timeout: float | None) -> EngineError:
    """A failed request as an error with its remedy.

    Args:
        error: what pymilvus raised.
        action: what was being done: "create x".
        where: the server or the file.
        timeout: seconds that were given.
    """
    code, reason = _grpc_code(error), _reason(error)
    if code == "UNAUTHENTICATED" or "auth check failure" in reason:
        return EngineError(
            f"cannot {action}: {where} refuses the login",
            f"set ${USER} and ${PASSWORD}, or ${TOKEN}",
        )
    if code == "PERMISSION_DENIED" or "permission deny" in reason.lower():
        return EngineError(f"cannot {action}: the login may not do that: {reason}")
    if code == "DEADLINE_EXCEEDED":
        return too_slow(action, where, timeout)
    if _untrusted(reason):
        return EngineError(
            f"the certificate of {where} is not trusted: {reason}",
            f"name a PEM file with its authority in ${CA}, and the host that is in it",
        )
    if code is not None or getattr(error, "code", None) == _CONNECT_FAILED:
        return TransientEngineError(
            f"cannot {action}: no answer from {where}: {reason}",
            "check that the server runs, the address, and milvus:// against milvuss://",
        )
    refused = getattr(error, "is_input_error", False) or getattr(error, "code", 1) in _INPUT
    kind = BadRowsError if refused else EngineError
    return kind(f"Milvus could not {action}: {reason}", _HINTS.get(getattr(error, "code", 0), ""))


def too_slow(action: str, where: str, timeout: float | None) -> TooSlowError:
    """The error of a request whose time is over."""
    seconds = "" if timeout is None else f" within {timeout:g} s"
    return TooSlowError(f"cannot {action}: no answer from {where}{seconds}")


def _grpc_code(error: Any) -> str | None:
    """Name of the gRPC status, of the error or of what caused it."""
    import grpc

    for found in (error, error.__cause__):
        if isinstance(found, grpc.RpcError):
            return str(found.code().name)
    code = getattr(error, "code", None)
    return str(code.name) if isinstance(code, grpc.StatusCode) else None


def _untrusted(reason: str) -> bool:
    return "certificate" in reason.lower() or "hostname verification" in reason.lower()


def _reason(error: Any) -> str:
    """The innermost cause, one line."""
    import grpc

    text = ""
    for found in (error.__cause__, error):
        if isinstance(found, grpc.RpcError) and not text:
            text = str(found.details() or "")
    text = text or str(getattr(error, "message", "") or error)
    text = text.rsplit("last error: ", 1)[-1]
    return text.splitlines()[0][:300] if text else type(error).__name__
