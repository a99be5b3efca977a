"""Reading a JSON file of somebody else's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from steelyard.errors import InputError


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no file; an InputError if it is damaged."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}", "correct or remove it") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a {type(value).__name__}, not an object", "correct it")
    return value
