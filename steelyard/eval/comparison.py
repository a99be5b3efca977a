"""Rows of a table: measures, retention, and the test against the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steelyard.eval.evaluate import SystemResult
from steelyard.eval.measures import PRIMARY
from steelyard.eval.results import SystemRow
from steelyard.eval.significance import Resampled, SignificanceSettings, compare


def system_rows(
    measured: Sequence[SystemResult],
    settings: Mapping[str, dict[str, Any]],
    baseline: str,
    retention_of: Mapping[str, str | None],
    testing: SignificanceSettings,
) -> list[SystemRow]:
    """A row a system.

    Args:
        measured: at least one, on the same queries.
        settings: by name, what each was measured with.
        baseline: name of the system that the others are tested against in nDCG@10; where it
            could not be measured there is no test.
        retention_of: by name, the system of which each keeps a share.
        testing: resamples, seed, confidence.
    """
    values = {one.system.name: one.measured.by_query[PRIMARY] for one in measured}
    resampled = Resampled(values, testing)
    compared = compare(values, baseline, testing, resampled) if baseline in values else {}
    rows = []
    for one in measured:
        name = one.system.name
        of = retention_of.get(name)
        share, low, high = _retention(name, of, one, measured, resampled)
        rows.append(
            SystemRow(
                system=name,
                means=one.means,
                encode_qps=None if one.encode_qps is None else round(one.encode_qps, 1),
                by_query={key: found.tolist() for key, found in one.measured.by_query.items()},
                retention=share,
                retention_low=low,
                retention_high=high,
                retention_of=None if share is None else of,
                against_baseline=compared.get(name),
                settings=settings.get(name, {}),
            )
        )
    return rows


def _retention(
    name: str,
    of: str | None,
    one: SystemResult,
    measured: Sequence[SystemResult],
    resampled: Resampled,
) -> tuple[float | None, float | None, float | None]:
    """The share and its interval; None where the other was not measured, or found nothing."""
    other = next((m for m in measured if m.system.name == of), None)
    if other is None or of is None or not other.measured.means[PRIMARY]:
        return None, None, None
    low, high = resampled.ratio(name, of) or (None, None)
    return one.measured.means[PRIMARY] / other.measured.means[PRIMARY], low, high
