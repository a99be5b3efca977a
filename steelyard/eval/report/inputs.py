"""Results of one or more evaluations, joined."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from steelyard.errors import InputError
from steelyard.eval.results import EvaluationResult, read_result


def read_results(paths: Sequence[Path]) -> tuple[EvaluationResult, list[str]]:
    """The collections of all files in order, and the commands that made them, if they say so.

    Raises:
        InputError: a file that is no result, or a collection that two of them have.
    """
    results = [read_result(path) for path in paths]
    collections = [each for result in results for each in result.collections]
    names = [each.collection for each in collections]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{twice} is in the results more than once", "give it once")
    failed = {name: why for result in results for name, why in result.failed.items()}
    versions: dict[str, str] = {}
    for result in results:
        for name, version in result.versions.items():
            known = versions.setdefault(name, version)
            if version not in known.split(", "):
                versions[name] = f"{known}, {version}"
    return EvaluationResult(collections, failed, versions), [
        command for path in paths if (command := _command(path))
    ]


def _command(path: Path) -> str:
    command = json.loads(path.read_text(encoding="utf-8")).get("command", "")
    return command if isinstance(command, str) else ""
