"""Declared metadata fields: ``price:float,brand:keyword``."""

from __future__ import annotations

import math
import re
from typing import Any, cast

from steelyard.errors import InputError
from steelyard.types import MetadataValue

MAX_KEYWORD_BYTES = 32_766
"""Longest keyword: what Lucene takes as one term, and Milvus too."""

FIELD_TYPES = ("keyword", "int", "float", "bool")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


def parse_fields(declaration: str) -> dict[str, str]:
    """Read a declaration; the empty string declares nothing.

    Raises:
        InputError: a bad name or an unknown type.
    """
    fields: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in declaration.split(","))):
        name, _, kind = part.partition(":")
        if not _NAME.fullmatch(name) or kind not in FIELD_TYPES or name in fields:
            raise InputError(
                f"cannot read the metadata field {part!r}",
                f"write name:type, each name once; types: {', '.join(FIELD_TYPES)}",
            )
        fields[name] = kind
    return fields


def read_value(kind: str, value: Any) -> MetadataValue:
    """A JSON value as a declared type; an int is a fine float, nothing else is converted.

    Raises:
        ValueError: the value is of another type, not finite, or too large for engines.
    """
    if value is None:
        return None
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise ValueError("number too large for a float") from error
    types: dict[str, type] = {"keyword": str, "int": int, "float": float, "bool": bool}
    expected = types[kind]
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise ValueError(f"expected {kind}, found {type(value).__name__}")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("integer of more than 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not a finite number")
    if isinstance(value, str) and len(value.encode(errors="replace")) > MAX_KEYWORD_BYTES:
        raise ValueError(f"keyword of more than {MAX_KEYWORD_BYTES:,} bytes")
    return cast("MetadataValue", value)
