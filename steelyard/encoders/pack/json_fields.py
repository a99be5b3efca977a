"""Strict reading of JSON into dataclasses: the error names the field, what it is and should be.

A dozen lines instead of a validation library, because the query side may depend on nothing
but numpy, scipy, tokenizers and safetensors.
"""

from __future__ import annotations

import contextlib
import dataclasses
import types
import typing
from typing import Any, TypeVar

from steelyard.errors import PackError

T = TypeVar("T")


def read_dataclass(cls: type[T], value: Any, where: str) -> T:
    """Build ``cls`` from a JSON object; unknown, missing or mistyped fields are a PackError.

    Args:
        cls: a dataclass whose fields are annotated with JSON types, lists, ``tuple[X, ...]``,
            dictionaries with string keys, ``X | None``, or further dataclasses.
        value: what ``json.loads`` gave.
        where: path for messages, such as ``pack.json``.
    """
    if not isinstance(value, dict):
        raise PackError(f"{where}: expected an object, found {type(value).__name__}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(value) - set(fields))
    if unknown:
        raise PackError(
            f"{where}: unknown field {unknown[0]!r}",
            "the pack was written by a newer version or edited by hand: upgrade or rebuild it",
        )
    arguments = {}
    for name, field in fields.items():
        if name in value:
            arguments[name] = _read(hints[name], value[name], f"{where}: {name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise PackError(f"{where}: field {name!r} is missing", "rebuild the pack")
    return cls(**arguments)


def _read(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (hint,) = (argument for argument in arguments if argument is not type(None))
        return _read(hint, value, where)
    if origin is list and isinstance(value, list):
        return [_read(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
    if origin is tuple and isinstance(value, list):
        return tuple(_read(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: _read(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return read_dataclass(hint, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
    expected = origin or hint
    if isinstance(value, expected) and not (expected is int and isinstance(value, bool)):
        return value
    raise PackError(
        f"{where}: expected {expected.__name__}, found {type(value).__name__} {value!r:.60}",
        "pack.json was edited by hand or damaged: rebuild the pack",
    )
