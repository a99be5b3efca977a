"""What a study found: means and deviations, and which estimate goes with quality."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from steelyard.eval.study.study import Quality, StudyRun


def summarise(runs: Sequence[StudyRun], full: Quality) -> list[dict[str, Any]]:
    """One row a variant, in the order first run: over its seeds, mean and sample deviation.

    ``kept_dense`` and ``kept_fused`` are the means as shares of the full model's; ``gain`` is the
    mean difference to the first variant over the seeds that both ran, with its standard error:
    the pools of one seed are drawn alike, so the differences of pairs are less noisy than means.
    """
    names = list(dict.fromkeys(run.variant for run in runs))
    first = {run.seed: run for run in runs if run.variant == names[0]}
    rows = []
    for name in names:
        chosen = [run for run in runs if run.variant == name]
        row: dict[str, Any] = {"variant": name, "seeds": [run.seed for run in chosen]}
        for key, of, whole in (
            ("dense", _dense, full.dense),
            ("fused", _fused, full.fused),
        ):
            values = [of(run) for run in chosen]
            pairs = [of(run) - of(first[run.seed]) for run in chosen if run.seed in first]
            row[key] = round(statistics.mean(values), 4)
            row[f"{key}_deviation"] = _deviation(values)
            row[f"kept_{key}"] = round(statistics.mean(values) / whole, 4) if whole else None
            row[f"{key}_gain"] = round(statistics.mean(pairs), 4) if pairs else None
            row[f"{key}_gain_error"] = _error(pairs)
        row["pseudo_queries"] = round(statistics.mean(run.pseudo_queries for run in chosen))
        row["encode_seconds"] = round(statistics.mean(run.encode_seconds for run in chosen), 1)
        row["learn_seconds"] = round(statistics.mean(run.learn_seconds for run in chosen), 1)
        rows.append(row)
    return rows


def estimates(runs: Sequence[StudyRun]) -> list[dict[str, Any]]:
    """How each number of the held-out estimate goes with nDCG@10 over all tables, best first.

    Spearman's rank correlation with the dense and the fused figure; nothing with fewer than four
    tables, or where a number is the same for all.
    """
    from scipy.stats import spearmanr

    rows: list[dict[str, Any]] = []
    if len(runs) < 4:
        return rows
    for key in runs[0].held_out:
        values = [float(run.held_out[key]) for run in runs]
        if len(set(values)) < 2:
            continue
        row: dict[str, Any] = {"estimate": key, "tables": len(runs)}
        for name, of in (("dense", _dense), ("fused", _fused)):
            found = float(spearmanr(values, [of(run) for run in runs]).statistic)
            row[name] = None if math.isnan(found) else round(found, 3)
        rows.append(row)
    return sorted(rows, key=lambda row: -abs(row["dense"] or 0))


def _dense(run: StudyRun) -> float:
    return run.quality.dense


def _fused(run: StudyRun) -> float:
    return run.quality.fused


def _deviation(values: Sequence[float]) -> float | None:
    return round(statistics.stdev(values), 4) if len(values) > 1 else None


def _error(pairs: Sequence[float]) -> float | None:
    spread = statistics.stdev(pairs) if len(pairs) > 1 else None
    return None if spread is None else round(spread / math.sqrt(len(pairs)), 4)
