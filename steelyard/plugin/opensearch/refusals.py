"""What OpenSearch answers when it refuses, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from steelyard.errors import EngineError
from steelyard.plugin.opensearch.settings import API_KEY, CA, PASSWORD, USER
from steelyard.plugin.records import ConflictError

_HINTS = (
    (
        ("no handler for type [knn_vector]", "unknown setting [index.knn"),
        "install the k-NN plugin in every node",
    ),
    (("unknown query [neural_sparse]",), "install the neural-search plugin in every node"),
    (("unknown query [knn]",), "install the k-NN plugin in every node"),
    (
        ("too_many_clauses", "too_many_nested_clauses", "maxclausecount"),
        "queries have up to 512 terms: raise indices.query.bool.max_clause_count, "
        "which is 1,024 unless it was lowered",
    ),
    (
        ("same name as the alias", "an index or data stream exists with the same name"),
        "an index has the alias's name: choose another name in the engine URL",
    ),
    (
        ("flood-stage", "read-only-allow-delete"),
        "the disk is nearly full: make room, then unblock the index",
    ),
    (("result window is too large",), "ask for fewer hits"),
    (("circuit_breaking_exception",), "the node is short of memory: raise its heap, or wait"),
)
_CERTIFICATE_HINTS = (
    ("mismatch", "write the host as the certificate names it in the engine URL"),
    ("expired", "renew the server's certificate, or set this machine's clock"),
    ("not yet valid", "set this machine's clock, or the server's"),
)
_STATUS_HINTS = {
    413: "raise http.max_content_length in the cluster or the proxy before it",
    429: "the cluster is overloaded: try again later",
    503: "the cluster is overloaded or restarting: try again later",
}


class TooLargeError(EngineError):
    """A request that is larger than the server or a proxy before it takes (413)."""


def refusal(action: str, status: int, answer: Any) -> EngineError:
    """An answer other than 2xx as an error with its remedy.

    Args:
        action: what was being done: "create x".
        status: of HTTP.
        answer: the body, parsed if it was JSON.
    """
    if status == 401:
        return EngineError(
            f"cannot {action}: the server refuses the login (401)",
            f"set ${USER} and ${PASSWORD}, or ${API_KEY}",
        )
    reasons = list(_reasons(answer))
    said = ": ".join(reasons[-1:]) or "no reason given"
    if status == 403 and not any("blocked" in reason for reason in reasons):
        return EngineError(
            f"cannot {action}: the login may not do that (403): {said[:300]}",
            "give the user the rights listed in docs/engines/opensearch.md",
        )
    everything = " ".join(reasons).lower()
    hint = next(
        (hint for words, hint in _HINTS if any(word in everything for word in words)),
        _STATUS_HINTS.get(status, ""),
    )
    kind = (
        ConflictError
        if "version_conflict_engine_exception" in everything
        else TooLargeError
        if status == 413
        else EngineError
    )
    return kind(f"cannot {action}: OpenSearch answers {status}: {said[:300]}", hint)


def untrusted(where: str, reason: str) -> EngineError:
    """A certificate that was not accepted, with its remedy.

    Args:
        where: the server.
        reason: OpenSSL's.
    """
    return EngineError(
        f"the certificate of {where} is not trusted: {reason}",
        next(
            (hint for word, hint in _CERTIFICATE_HINTS if word in reason.lower()),
            f"name a PEM file with its authority in ${CA}",
        ),
    )


def _reasons(answer: Any) -> Iterator[str]:
    """Types and reasons, the outermost first."""
    if isinstance(answer, str):
        yield answer.strip().splitlines()[0] if answer.strip() else ""
        return
    if not isinstance(answer, dict):
        return
    error = answer.get("error", answer)
    if isinstance(error, str):
        yield error
        return
    seen = 0
    while isinstance(error, dict) and seen < 10:
        text = f"{error.get('type', '')}: {error.get('reason', '')}"
        yield text.strip(": ")
        shards = error.get("failed_shards") or []
        error = error.get("caused_by") or (shards[0].get("reason") if shards else None)
        seen += 1
