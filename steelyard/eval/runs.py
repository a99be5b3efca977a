"""Runs: what a system returned for each query, also as TREC run files."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steelyard.errors import InputError
from steelyard.eval.collection import Query
from steelyard.indexer.reading.streams import plain_name, read_lines
from steelyard.plugin.engine import Candidates

RUN_ENDINGS = (".trec", ".run", ".txt", ".tsv", ".res")
"""Endings of run files that are no part of the system's name."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]")


@dataclass(frozen=True, slots=True)
class Run:
    """A system's rankings, query id -> document id -> score.

    Scores fall strictly with rank, as float32 too, so that every measuring tool keeps our order:
    trec_eval reads them as float32 and breaks ties by document id downwards, some of ir-measures'
    own measures (RR@10) upwards, as we do.
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
    tag = "_".join(run.system.split()) or "run"
    with path.open("w", encoding="utf-8") as stream:
        for query, scores in run.scores.items():
            for rank, (document, score) in enumerate(scores.items(), start=1):
                stream.write(f"{query} Q0 {document} {rank} {score!r} {tag}\n")


def read_trec(path: Path) -> Run:
    """A TREC run file, plain or packed; the ranking is by score, as trec_eval has it.

    Raises:
        InputError: no such file, a line that is no result, or a document twice for one query.
    """
    if not path.is_file():
        raise InputError(f"no run at {path}", "give a TREC run file")
    scores: dict[str, dict[str, float]] = {}
    tag = path.stem
    for line in read_lines(path):
        if not line.too_long and not line.data.strip():
            continue
        try:
            query, _, document, _, text, tag = line.data.decode("utf-8").split()
            score = float(text)
            if line.too_long or not math.isfinite(score):
                raise ValueError(text)
        except ValueError as error:
            raise InputError(
                f"{path}, line {line.number}: no result of a run",
                "a line is: query Q0 document rank score system",
            ) from error
        found = scores.setdefault(query, {})
        if document in found:
            raise InputError(
                f"{path}, line {line.number}: document {document!r} again for query {query!r}",
                "a ranking holds a document once",
            )
        found[document] = score
    if not scores:
        raise InputError(f"{path} holds no result", "give a TREC run file")
    return Run(tag, {query: _as_trec_eval(found) for query, found in scores.items()})


def run_files(place: Path) -> list[Path]:
    """A run file, or those in a folder in order of their names; hidden ones are passed over."""
    found = sorted(place.iterdir()) if place.is_dir() else [place]
    return [file for file in found if not file.is_dir() and not file.name.startswith(".")]


def run_name(path: Path) -> str:
    """What the system of a run file is called when nobody says: the file's name."""
    name = plain_name(path.name)
    end = Path(name).suffix
    return name.removesuffix(end) if end in RUN_ENDINGS else name


def cut_at(run: Run) -> int | None:
    """At which rank a run of unknown make was cut; None when it was not.

    Half of its rankings or more are as long as the longest.
    """
    lengths = sorted(len(found) for found in run.scores.values())
    longest = lengths[-1]
    return longest if lengths[len(lengths) // 2] == longest else None


def file_names(names: Sequence[str]) -> dict[str, str]:
    """A name for files by each name: letters, digits and ``._+-``, no two alike on any disk."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        base = _UNSAFE.sub("_", name.replace("/", "-")).lstrip(".")[:150] or "_"
        number, safe = 1, base
        while safe.lower() in taken:
            number += 1
            safe = f"{base}-{number}"
        taken.add(safe.lower())
        found[name] = safe
    return found


def _falling(ranking: Candidates) -> dict[str, float]:
    return dict(zip(ranking.ids, _strictly(ranking.scores), strict=True))


def _as_trec_eval(found: dict[str, float]) -> dict[str, float]:
    """By score as float32, ties by document id downwards; then no tie is left to any tool."""
    order = sorted(found, reverse=True)
    order.sort(key=lambda document: -np.float32(found[document]))
    scores = np.array([found[document] for document in order])
    return dict(zip(order, _strictly(scores), strict=True))


def _strictly(scores: NDArray[np.float64]) -> list[float]:
    """The same, lowered by least steps where as float32 they would not fall."""
    values: list[float] = scores.tolist()
    narrow = scores.astype(np.float32)
    if (np.diff(narrow) < 0).all():
        return values
    last = np.float32(np.inf)
    for position, one in enumerate(narrow):
        if one < last:
            last = one
        else:
            last = np.nextafter(last, np.float32(-np.inf))
            values[position] = float(last)
    return values
