"""Runs: what a system returned for each query, also as TREC run files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from steelyard.errors import InputError
from steelyard.eval.collection import Query
from steelyard.plugin.engine import Candidates


@dataclass(frozen=True, slots=True)
class Run:
    """A system's rankings, query id -> document id -> score.

    Scores fall strictly with rank, so that every measuring tool keeps our order: trec_eval and
    ir-measures break ties by document id downwards, we break them upwards.
    """

    system: str
    scores: dict[str, dict[str, float]]


def make_run(system: str, queries: Sequence[Query], rankings: Sequence[Candidates]) -> Run:
    """A run from rankings in the order of the queries."""
    return Run(
        system,
        {q.id: _falling(ranking) for q, ranking in zip(queries, rankings, strict=True)},
    )


def write_trec(run: Run, path: Path) -> None:
    """``query Q0 document rank score system``, one line a result.

    Raises:
        InputError: an id with white space, which the format cannot hold.
    """
    for identifier in {i for query, found in run.scores.items() for i in (query, *found)}:
        if len(identifier.split()) != 1:
            raise InputError(
                f"the id {identifier!r} holds white space, a TREC run file cannot",
                "leave out --runs, or change the ids",
            )
    with path.open("w", encoding="utf-8") as stream:
        for query, scores in run.scores.items():
            for rank, (document, score) in enumerate(scores.items(), start=1):
                stream.write(f"{query} Q0 {document} {rank} {score!r} {run.system}\n")


def _falling(ranking: Candidates) -> dict[str, float]:
    scores = ranking.scores.tolist()
    if (np.diff(ranking.scores) < 0).all():
        return dict(zip(ranking.ids, scores, strict=True))
    last = math.inf
    for position, score in enumerate(scores):
        last = scores[position] = min(score, math.nextafter(last, -math.inf))
    return dict(zip(ranking.ids, scores, strict=True))
