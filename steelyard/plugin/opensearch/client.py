"""How opensearch-py's clients are set up, the synchronous and the asynchronous one alike."""

from __future__ import annotations

from typing import Any

from steelyard.plugin.opensearch.json_text import dumps, loads
from steelyard.plugin.opensearch.settings import Settings

POOL = 64
"""Connections that are kept; more are made when they are needed, and closed again."""


def client_arguments(settings: Settings) -> dict[str, Any]:
    """Arguments of ``OpenSearch`` and of ``AsyncOpenSearch``.

    Raises:
        InputError: the file of certificates cannot be read.
    """
    from opensearchpy.serializer import JSONSerializer

    class Json(JSONSerializer):
        """By orjson; bytes and text are sent as they are."""

        def dumps(self, data: Any) -> Any:
            """A request's body."""
            return data if isinstance(data, str | bytes) else dumps(data)

        def loads(self, s: str) -> Any:
            """An answer."""
            try:
                return loads(s)
            except ValueError:
                return super().loads(s)  # raises what the client expects

    json = Json()
    key = settings.api_key
    return {
        "hosts": [{"host": settings.host, "port": settings.port}],
        "use_ssl": settings.tls,
        "ssl_context": settings.ssl_context(),
        "http_auth": (settings.user, settings.password) if settings.user else None,
        "headers": {"Authorization": f"ApiKey {key}"} if key else None,
        "timeout": settings.timeout,
        "max_retries": 0,
        "pool_maxsize": POOL,
        "serializer": json,
        "serializers": {json.mimetype: json},
    }
