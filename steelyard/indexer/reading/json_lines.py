"""One line of a JSONL file as an object with an id and strings, or the reason why not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from steelyard.indexer.reading.mapping import look_up
from steelyard.types import MAX_ID_BYTES


def read_object(data: bytes) -> dict[str, Any]:
    """A line as a JSON object.

    Raises:
        ValueError: what is wrong with it, in a few words.
    """
    try:
        value = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"broken JSON: {str(error)[:100]}") from error
    if not isinstance(value, dict):
        raise ValueError(f"not a JSON object but {type(value).__name__}")
    return value


def read_id(value: Mapping[str, Any], names: Sequence[str] = ("_id", "id")) -> str:
    """The id of an object, by the first of these names that it has: a string, or an integer.

    Raises:
        ValueError: missing, of another type, or longer than engines take.
    """
    identifier = next(
        (found for name in names if (found := look_up(value, name)) is not None), None
    )
    if isinstance(identifier, int) and not isinstance(identifier, bool):
        identifier = str(identifier)
    if identifier is None or identifier == "":
        raise ValueError("missing id")
    if not isinstance(identifier, str):
        raise ValueError(f"id is not a string but {type(identifier).__name__}")
    check_characters("id", identifier)
    check_id_length("id", identifier)
    return identifier


def read_string(value: Mapping[str, Any], name: str) -> str:
    """A string field; missing or null is empty.

    Raises:
        ValueError: of another type, or not storable.
    """
    found = look_up(value, name)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise ValueError(f"{name} is not a string but {type(found).__name__}")
    check_characters(name, found)
    return found


def check_id_length(name: str, identifier: str) -> None:
    """Raise a ValueError for an id that engines do not take."""
    size = len(identifier.encode())
    if size > MAX_ID_BYTES:
        raise ValueError(f"{name} of {size} bytes, at most {MAX_ID_BYTES}")


def check_characters(name: str, text: str) -> None:
    """Raise a ValueError for text that cannot be stored everywhere as UTF-8."""
    if "\0" in text:
        raise ValueError(f"{name} holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} holds a lone surrogate, so it is not UTF-8") from error
