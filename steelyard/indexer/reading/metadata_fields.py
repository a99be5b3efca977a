"""Declared metadata fields: ``price:float,brand:keyword,cost:float=price.net``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, cast

from steelyard.errors import InputError
from steelyard.types import MetadataValue

MAX_KEYWORD_BYTES = 32_766
"""Longest keyword: what Lucene takes as one term, and Milvus too."""

FIELD_TYPES = ("keyword", "int", "float", "bool")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_INT = re.compile(r"[+-]?[0-9]+")
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_BOOLS = {"true": True, "false": False, "1": True, "0": False}


@dataclass(frozen=True, slots=True)
class DeclaredField:
    """One declared metadata field.

    Attributes:
        name: in the index.
        kind: its type.
        source: what records call it.
    """

    name: str
    kind: str
    source: str


def parse_declaration(declaration: str) -> list[DeclaredField]:
    """Read ``name:type`` and ``name:type=source``; the empty string declares nothing.

    Raises:
        InputError: a bad name or an unknown type.
    """
    fields: dict[str, DeclaredField] = {}
    for part in filter(None, (part.strip() for part in declaration.split(","))):
        left, renamed, source = part.partition("=")
        name, _, kind = left.partition(":")
        wrong = renamed and not source
        if not _NAME.fullmatch(name) or kind not in FIELD_TYPES or name in fields or wrong:
            raise InputError(
                f"cannot read the metadata field {part!r}",
                "write name:type or name:type=source, each name once; types: "
                + ", ".join(FIELD_TYPES),
            )
        fields[name] = DeclaredField(name, kind, source or name)
    return list(fields.values())


def parse_fields(declaration: str) -> dict[str, str]:
    """Names and types of a declaration; where values come from is in ``FieldMapping``.

    Raises:
        InputError: a bad name or an unknown type.
    """
    return {field.name: field.kind for field in parse_declaration(declaration)}


def read_text(kind: str, text: str) -> MetadataValue:
    """A table's text as a declared type; a blank one is no value.

    Raises:
        ValueError: it does not read as this type.
    """
    if kind == "keyword":
        return text or None
    word = text.strip()
    if not word:
        return None
    if kind == "bool":
        if word.lower() not in _BOOLS:
            raise ValueError(f"expected bool ({', '.join(_BOOLS)}), found {_shown(word)}")
        return _BOOLS[word.lower()]
    pattern = _INT if kind == "int" else _FLOAT
    if not pattern.fullmatch(word):
        raise ValueError(f"expected {kind}, found {_shown(word)}")
    # More digits than 64 bits have are refused before Python's own limit on them is met.
    if kind == "int":
        return int(word) if len(word.lstrip("+-0")) < 20 else 2**63
    return float(word)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


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
