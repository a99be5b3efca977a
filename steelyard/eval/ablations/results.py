"""What an ablation study found, as JSON of format 1: written after every run, and gone on from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from steelyard.encoders.pack.json_fields import read_dataclass
from steelyard.errors import InputError, PackError

FORMAT = 1
KIND = "ablations"


@dataclass(frozen=True, slots=True)
class SystemFigures:
    """One system of one run.

    Attributes:
        ndcg10, recall100: means.
        by_query: nDCG@10 of each query.
    """

    ndcg10: float
    recall100: float
    by_query: list[float]


@dataclass(frozen=True, slots=True)
class AblationRun:
    """One variant trained with one seed, and measured.

    Attributes:
        variant, seed: which.
        steps: done.
        seconds: of training.
        parameters: numbers that learnt.
        losses: of each step; not comparable between variants with other terms.
        terms: mean number of terms over 0 of a document, before the heaviest are taken.
        flops: what the regulariser holds down, of the collection's documents.
        systems: by name.
        sizes: of the recipe and of MRL: look-up, sparse and fused by dims and terms.
    """

    variant: str
    seed: int
    steps: int
    seconds: float
    parameters: int
    losses: list[float]
    terms: float
    flops: float
    systems: dict[str, SystemFigures]
    sizes: list[dict[str, Any]]


def read_finished(path: Path | None, study: dict[str, Any]) -> list[AblationRun]:
    """Runs that a file of the same study holds; none where there is no file.

    Args:
        path: that ``--json`` names.
        study: everything that the figures depend on, seeds and variants aside.

    Raises:
        InputError: the file is something else, or of another study.
    """
    if path is None or not path.is_file():
        return []
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict) or (value.get("kind"), value.get("format")) != (
            KIND,
            FORMAT,
        ):
            raise ValueError("no result of 'steelyard bench ablations'")
        there = value["study"]
        if not isinstance(there, dict):
            raise ValueError("its study is no object")
        runs = [_read(one, str(path)) for one in value["runs"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, PackError) as error:
        raise InputError(f"{path}: {error}", "name another --json, or remove the file") from error
    ours = json.loads(json.dumps(study))
    if there != ours:
        changed = [name for name in {**there, **ours} if there.get(name) != ours.get(name)]
        raise InputError(
            f"{path} holds another study: its {', '.join(changed)} differ",
            "name another --json, or remove the file",
        )
    return runs


def study_to_dict(study: dict[str, Any], runs: Sequence[AblationRun]) -> dict[str, Any]:
    """As JSON."""
    return {
        "format": FORMAT,
        "kind": KIND,
        "study": study,
        "runs": [asdict(run) for run in runs],
    }


def _read(value: Any, where: str) -> AblationRun:
    systems = {
        name: read_dataclass(SystemFigures, one, f"{where}: {name}")
        for name, one in value["systems"].items()
    }
    return AblationRun(**{**value, "systems": systems})
