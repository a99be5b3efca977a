"""Results of one or more evaluations, joined."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
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
    failed = {
        name: why
        for result in results
        for name, why in result.failed.items()
        if name not in names  # measured by another of them
    }
    versions = joined_versions([result.versions for result in results])
    return EvaluationResult(collections, failed, versions), [
        command for path in paths if (command := _command(path))
    ]


def joined_versions(versions: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Of all results; where they disagree, all are told."""
    found: dict[str, list[str]] = {}
    for each in versions:
        for name, version in each.items():
            known = found.setdefault(name, [])
            known += [one for one in version.split(", ") if one not in known]
    return {name: ", ".join(known) for name, known in found.items()}


def _command(path: Path) -> str:
    command = json.loads(path.read_text(encoding="utf-8")).get("command", "")
    return command if isinstance(command, str) else ""
