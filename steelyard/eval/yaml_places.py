"""YAML with the line of every key, so that an error can say where to look."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

from steelyard.errors import InputError, first_line, needs_extra

Place: TypeAlias = tuple[int | str, ...]
"""Keys and positions from the top: ``("systems", 2, "dense")``."""


def read_yaml(path: Path) -> tuple[Any, dict[Place, int]]:
    """What a YAML file says, and the line, from 1, of each place in it.

    Raises:
        InputError: no such file, no YAML, or a key twice.
    """
    with needs_extra("eval"):
        import yaml

    if not path.is_file():
        raise InputError(f"no file {path}", "give a YAML file")
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
        lines: dict[Place, int] = {(): 1}
        if node is not None:
            _walk(node, (), lines, path)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        reason = getattr(error, "problem", None) or first_line(error)
        raise InputError(f"{where}: no YAML: {reason}", "mend the file") from error
    return value, lines


def _walk(node: Any, place: Place, lines: dict[Place, int], path: Path) -> None:
    if node.id == "mapping":
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.id != "scalar" or key.value in seen:
                shown = key.value if key.id == "scalar" else "..."
                raise InputError(
                    f"{path}, line {line}: the key {shown!r} again", "name every key once"
                )
            seen.add(key.value)
            inner = (*place, key.value)
            lines[inner] = line
            _walk(value, inner, lines, path)
    elif node.id == "sequence":
        for position, value in enumerate(node.value):
            inner = (*place, position)
            lines[inner] = value.start_mark.line + 1
            _walk(value, inner, lines, path)
