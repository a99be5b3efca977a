"""One table an ablation: the whole recipe, the variant, their difference, and the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steelyard.eval.ablations.published import PUBLISHED, PUBLISHED_SIZES
from steelyard.eval.ablations.results import AblationRun
from steelyard.eval.ablations.variants import FULL, MRL, VARIANTS
from steelyard.eval.significance import SignificanceSettings, resampled_means
from steelyard.eval.sweeps.results import Difference
from steelyard.eval.tower_quality import BM25, LIGHT, SPARSE, SYSTEMS

_PARTS = ("lookup", "sparse", "fused")
"""Of a size: see ``SizedQuality``."""

SHOWN = [name for name in SYSTEMS if name != BM25]


@dataclass(frozen=True, slots=True)
class AblationTable:
    """One table.

    Attributes:
        title: what was changed.
        columns, rows: as text.
        trend: ours beside the paper's, in a line or two.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    trend: str


def difference(
    runs: Sequence[AblationRun], variant: str, system: str, reference: str = FULL
) -> Difference | None:
    """Mean difference in nDCG@10 from the recipe, with a 95 % bootstrap interval over queries.

    Runs are paired by seed, and each query's differences averaged over the seeds. The interval
    is of the queries: with one seed, another seed may well fall outside it.

    Args:
        runs: of the study.
        variant: which.
        system: of ``SYSTEMS``.
        reference: the other variant.

    Returns:
        None where no seed has both.
    """
    ours, theirs = _by_seed(runs, variant, system), _by_seed(runs, reference, system)
    if not VARIANTS[variant].trained:
        ours = dict.fromkeys(theirs, next(iter(ours.values()))) if ours else {}
    seeds = sorted(set(ours) & set(theirs))
    if not seeds:
        return None
    gains = np.mean([ours[seed] - theirs[seed] for seed in seeds], axis=0)
    settings = SignificanceSettings()
    outside = (1 - settings.confidence) / 2
    low, high = np.quantile(
        resampled_means(gains[:, None], settings)[:, 0], [outside, 1 - outside]
    )
    return Difference(float(gains.mean()), float(low), float(high))


def tables(runs: Sequence[AblationRun]) -> list[AblationTable]:
    """A table for every variant that was run beside the recipe, and one of the sizes."""
    there = {run.variant for run in runs}
    if FULL not in there:
        return []
    made = [_table(runs, name) for name in VARIANTS if name in there - {FULL}]
    sized = _sizes(runs)
    return [*made, sized] if sized is not None else made


def means(runs: Sequence[AblationRun], variant: str) -> dict[str, float]:
    """nDCG@10 of each system, and ``terms`` and ``flops``; means over the seeds."""
    chosen = [run for run in runs if run.variant == variant]
    found = {
        name: float(np.mean([run.systems[name].ndcg10 for run in chosen])) for name in SYSTEMS
    }
    return {
        **found,
        "terms": float(np.mean([run.terms for run in chosen])),
        "flops": float(np.mean([run.flops for run in chosen])),
    }


def _of_shared_seeds(runs: Sequence[AblationRun], variant: str) -> list[AblationRun]:
    """Those that a variant has in common with the recipe; it is trained once without any."""
    if not VARIANTS[variant].trained:
        return list(runs)
    seeds = [{run.seed for run in runs if run.variant == name} for name in (variant, FULL)]
    return [run for run in runs if run.seed in seeds[0] & seeds[1]]


def _table(runs: Sequence[AblationRun], variant: str) -> AblationTable:
    runs = _of_shared_seeds(runs, variant)
    ours, whole = means(runs, variant), means(runs, FULL)
    rows = []
    for system in SHOWN:
        changed = difference(runs, variant, system)
        values = [_four(whole[system]), _four(ours[system])]
        rows.append([system, *values, *_difference(changed)])
    rows.append(["terms", f"{whole['terms']:,.0f}", f"{ours['terms']:,.0f}", "", ""])
    rows.append(["FLOPS", f"{whole['flops']:,.1f}", f"{ours['flops']:,.1f}", "", ""])
    columns = ["nDCG@10", "recipe", variant, "difference", "95 % interval"]
    return AblationTable(VARIANTS[variant].about, columns, rows, _trend(runs, variant))


def _trend(runs: Sequence[AblationRun], variant: str) -> str:
    paper = PUBLISHED.get(variant)
    if paper is None:
        return "No published figure." if VARIANTS[variant].trained else ""
    ours = means(runs, variant)[paper.system]
    whole = means(runs, FULL)[paper.system]
    found = difference(runs, variant, paper.system)
    said = "not comparable"
    if found is not None:
        apart = found.low > 0 or found.high < 0
        same = (found.mean < 0) == (paper.without < paper.whole)
        said = "not told apart" if not apart else "the same way" if same else "the other way"
    return (
        f"Published, {paper.system}: {paper.without} for {paper.whole} "
        f"({paper.without / paper.whole - 1:+.0%}). Here: {100 * ours:.1f} for {100 * whole:.1f}"
        f"{f' ({ours / whole - 1:+.0%})' if whole else ''}: {said}."
    )


def _sizes(runs: Sequence[AblationRun]) -> AblationTable | None:
    """Look-up and hybrid by dims and terms, of the recipe cut short and of MRL."""
    kinds = [name for name in (FULL, MRL) if any(run.variant == name for run in runs)]
    grids = {name: _grid(runs, name) for name in kinds}
    points = grids[FULL]
    if not points:
        return None
    columns = ["dims x terms"]
    for name in ("look-up", "lm-head", "both"):
        columns += [name if kind == FULL else f"{name}, {kind}" for kind in kinds]
    rows = [
        [
            f"{dims} x {terms}",
            *(_four(grids[kind][dims, terms][part]) for part in _PARTS for kind in kinds),
        ]
        for dims, terms in points
    ]
    paper = ", ".join(f"{dims}: {value}" for dims, value in PUBLISHED_SIZES.items())
    return AblationTable(
        "first components x heaviest terms, nDCG@10",
        columns,
        rows,
        f"Published, {LIGHT}+{SPARSE}, dims = terms: {paper}.",
    )


def _grid(runs: Sequence[AblationRun], variant: str) -> dict[tuple[int, int], dict[str, float]]:
    """Means over the seeds, by dims and terms."""
    chosen = [run.sizes for run in runs if run.variant == variant]
    found: dict[tuple[int, int], dict[str, float]] = {}
    for points in zip(*chosen, strict=True):
        found[points[0]["dims"], points[0]["max_terms"]] = {
            part: float(np.mean([point[part]["ndcg10"] for point in points])) for part in _PARTS
        }
    return found


def _by_seed(
    runs: Sequence[AblationRun], variant: str, system: str
) -> dict[int, NDArray[np.float64]]:
    return {
        run.seed: np.array(run.systems[system].by_query) for run in runs if run.variant == variant
    }


def _four(value: float) -> str:
    return f"{value:.4f}"


def _difference(value: Difference | None) -> list[str]:
    """It, and its interval."""
    if value is None:
        return ["", ""]
    ends = [f"{end:+.3f}".replace("0.", ".", 1) for end in (value.low, value.high)]
    return [f"{value.mean:+.4f}", " to ".join(ends)]
