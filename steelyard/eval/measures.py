"""Measures by ir-measures: means and values by query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelyard.errors import InputError, first_line, needs_extra
from steelyard.eval.results import MEASURES as KEYS
from steelyard.eval.runs import Run

MEASURES = dict(zip(KEYS, ("nDCG@10", "R@100", "R@1000", "RR@10", "AP"), strict=True))
"""Our names and ir-measures' names, in the order of the table's columns."""

PRIMARY = "ndcg@10"
"""The measure that systems are tested in, and whose retention is told."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Values of one run: means, and float64 ``[queries]`` for each measure."""

    means: dict[str, float]
    by_query: dict[str, NDArray[np.float64]]


def measure(
    run: Run,
    qrels: Mapping[str, Mapping[str, int]],
    queries: Sequence[str],
    measures: Mapping[str, str] = MEASURES,
) -> Measured:
    """Measure a run on the judged queries; one that was not answered scores 0.

    Args:
        run: what a system returned; AP is over all of it.
        qrels: query id -> document id -> relevance.
        queries: ids of the judged queries to measure.
        measures: our names and ir-measures' names.

    Raises:
        InputError: a measure that ir-measures cannot compute here.
    """
    with needs_extra("eval"):
        import ir_measures

    parsed = {name: parse_measure(text) for name, text in measures.items()}
    names = {value: key for key, value in parsed.items()}
    position = {query: row for row, query in enumerate(queries)}
    by_query = {name: np.zeros(len(queries)) for name in measures}
    judged = {query: dict(qrels[query]) for query in queries}
    try:
        for metric in ir_measures.iter_calc(list(parsed.values()), judged, run.scores):
            by_query[names[metric.measure]][position[metric.query_id]] = metric.value
    except (ValueError, RuntimeError, KeyError, OverflowError, SystemError) as error:
        raise InputError(
            f"ir-measures cannot compute {', '.join(measures.values())}: {first_line(error)}",
            "leave that measure out, or install its provider",
        ) from error
    return Measured({name: float(values.mean()) for name, values in by_query.items()}, by_query)


def parse_measure(text: str) -> Any:
    """A measure by ir-measures' name, such as ``nDCG@10`` or ``P@5``.

    Raises:
        InputError: there is none of that name.
    """
    with needs_extra("eval"):
        import ir_measures

    try:
        found = ir_measures.parse_measure(text)
        found.validate_params()
        # trec_eval ends the whole process over a cutoff of 0.
        if not 0 < found.params.get("cutoff", 1) < 2**31:
            raise ValueError(text)
        return found
    except (NameError, ValueError, SyntaxError, TypeError, AssertionError) as error:
        raise InputError(
            f"no measure {text!r}",
            f"write them as ir-measures does: {', '.join(MEASURES.values())}",
        ) from error


def named_measures(texts: Sequence[str]) -> dict[str, str]:
    """Our name and ir-measures' name of each; the primary one is always there, and first.

    Raises:
        InputError: an unknown one.
    """
    ours = {str(parse_measure(text)): key for key, text in MEASURES.items()}
    named = {PRIMARY: MEASURES[PRIMARY]}
    for text in texts:
        full = str(parse_measure(text))
        plain = full.lower().replace("r@", "recall@") if full.startswith("R@") else full.lower()
        named[ours.get(full, plain)] = full
    return named


def too_deep(measures: Mapping[str, str], depth: int) -> list[str]:
    """Our names of the recalls that look further down than ``depth`` ranks.

    Recall@1000 of a ranking that was cut at 100 is its recall@100, under a name that misleads:
    it is not told. What looks at the top, such as nDCG@10, judges a short list as it is.
    """
    parsed = {name: parse_measure(text) for name, text in measures.items()}
    return [
        name
        for name, one in parsed.items()
        if one.NAME == "R" and one.params.get("cutoff", 0) > depth
    ]
