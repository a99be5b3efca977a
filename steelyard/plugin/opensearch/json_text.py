"""JSON by orjson, which writes float32 arrays as they are; what it cannot say goes by ``json``."""

from __future__ import annotations

import json
from typing import Any

from steelyard.errors import needs_extra


def dumps(value: Any) -> bytes:
    """Compact JSON; NumPy arrays are lists, and float32 has no more digits than it needs.

    NaN and infinity become null: refuse them before.
    """
    with needs_extra("opensearch"):
        import orjson
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # a lone surrogate, an integer of more than 64 bits
        return json.dumps(value, separators=(",", ":"), default=_plain).encode("ascii")


def loads(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none.
    """
    with needs_extra("opensearch"):
        import orjson
    try:
        return orjson.loads(text)
    except ValueError:  # also a lone surrogate
        return json.loads(text)


def _plain(value: Any) -> Any:
    return value.tolist()
