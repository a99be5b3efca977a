"""The report's tables."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from steelyard.eval.report.content import Table, plain
from steelyard.eval.report.fusion_plot import curves
from steelyard.eval.report.intervals import mean_intervals
from steelyard.eval.report.sizes_plots import unbeaten
from steelyard.eval.results import MEASURES, CollectionResult, SystemRow
from steelyard.eval.sweeps.results import Difference, FusionPoint, FusionResult, SizesResult

SHOWN = {
    "ndcg@10": "nDCG@10",
    "recall@100": "R@100",
    "recall@1000": "R@1000",
    "rr@10": "RR@10",
    "ap": "AP",
}
NOTHING = "-"


def overview_table(collections: Sequence[CollectionResult]) -> Table:
    """What was measured on what."""
    rows = []
    for each in collections:
        fusion = str(each.fusion.get("method", NOTHING))
        weights = each.fusion.get("weights")
        if fusion == "min-max" and isinstance(weights, list | tuple):
            fusion += " " + " / ".join(map(str, weights))
        rows.append(
            [
                plain(each.collection),
                f"{len(each.queries):,}",
                _count(each.documents),
                f"{each.missing_queries:,}",
                _count(each.candidates),
                plain(fusion),
                plain(each.search),
                plain(each.baseline),
            ]
        )
    columns = ["collection", "queries", "documents", "without a text", "candidates", "fusion"]
    return Table("What was measured", [*columns, "search", "baseline"], rows)


def mean_table(collections: Sequence[CollectionResult]) -> Table | None:
    """Means over collections, of the systems that all have; None for fewer than two."""
    if len(collections) < 2:
        return None
    systems = [
        row.system
        for row in collections[0].rows
        if all(row.system in {other.system for other in each.rows} for each in collections)
    ]
    measures = [
        name
        for name in _measures(collections[0])
        if all(each.row(s).means.get(name) is not None for s in systems for each in collections)
    ]
    if not systems or not measures:
        return None
    rows = [
        [
            plain(system),
            *(f"{fmean(each.row(system).means[m] or 0 for each in collections):.4f}"
              for m in measures),
        ]
        for system in systems
    ]  # fmt: skip
    caption = f"Means over the {len(collections)} collections, each counted alike"
    return Table(caption, ["system", *map(_title, measures)], rows)


def measures_table(collection: CollectionResult) -> Table:
    """Every measure with its interval, retention, encoding speed."""
    measures = [name for name in _measures(collection) if _there(collection, name)]
    rows = [
        [
            plain(row.system),
            *_measured(row, measures),
            _retention(row),
            NOTHING if row.encode_qps is None else f"{row.encode_qps:,.0f}",
        ]
        for row in collection.rows
    ]
    columns = ["system", *map(_title, measures), "retention %", "queries/s"]
    return Table(f"Measures on {plain(collection.collection)}", columns, rows)


def comparison_table(collection: CollectionResult) -> Table | None:
    """Differences in nDCG@10 with interval and p-values; None where nothing is compared."""
    rows = []
    for row in collection.rows:
        against = row.against_baseline
        if against is None:
            continue
        rows.append(
            [
                plain(row.system),
                f"{against.difference:+.4f}",
                f"[{against.low:+.4f}, {against.high:+.4f}]",
                p_value(against.p_value),
                p_value(against.p_holm),
                f"{against.wins:,}",
                f"{against.ties:,}",
                f"{against.losses:,}",
            ]
        )
    columns = ["system", "difference", "interval", "p", "p (Holm)", "better", "equal"]
    caption = f"nDCG@10 against {plain(collection.baseline)}"
    return Table(caption, [*columns, "worse"], rows) if rows else None


def sizes_table(sizes: SizesResult) -> Table:
    """Every point; those that no other beats are marked."""
    kept = unbeaten(sizes.points)
    rows = [
        [
            str(point.dims),
            "all" if point.max_terms is None else str(point.max_terms),
            plain(point.dtype),
            f"{point.index_bytes / 1e6:.2f}",
            f"{point.table_bytes / 1e6:.2f}",
            f"{point.lookup.ndcg10:.4f}",
            f"{point.sparse.ndcg10:.4f}",
            f"{point.fused.ndcg10:.4f}",
            _difference(point.difference),
            f"{point.fused.recall100:.4f}",
            "yes" if at in kept else "",
        ]
        for at, point in enumerate(sizes.points)
    ]
    columns = ["dimensions", "terms", "table", "index MB", "table MB", "look-up nDCG@10"]
    columns += ["sparse nDCG@10", "fused nDCG@10", "from the largest", "fused R@100"]
    columns += ["none better at its size"]
    return Table(f"Quality against size on {plain(sizes.collection)}", columns, rows)


def fusion_table(fusion: FusionResult) -> Table:
    """Of each dense arm: both ends, the pack's weight, the best weight, RRF."""
    rows = []
    for dense, points in curves(fusion).items():
        best = max(points, key=lambda point: point.fused.ndcg10)
        own = min(points, key=lambda point: abs((point.dense_weight or 0) - fusion.dense_weight))
        for what, point in (
            ("sparse alone", points[0]),
            ("nearest to the pack's weight", own),
            ("best weight", best),
            ("dense alone", points[-1]),
        ):
            rows.append(_fusion_row(fusion, what, point))
        rows += [
            _fusion_row(fusion, "RRF", point)
            for point in fusion.points
            if point.method == "rrf" and point.dense == dense
        ]
    columns = ["system", "point", "dense weight", "nDCG@10", "from the pack's", "R@100"]
    return Table(f"Fusion on {plain(fusion.collection)}", columns, rows)


def p_value(value: float) -> str:
    """Two digits, small ones as such."""
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}"


def _fusion_row(fusion: FusionResult, what: str, point: FusionPoint) -> list[str]:
    return [
        plain(f"{point.dense}+{fusion.sparse}"),
        what,
        NOTHING if point.dense_weight is None else f"{point.dense_weight:.2f}",
        f"{point.fused.ndcg10:.4f}",
        _difference(point.difference),
        f"{point.fused.recall100:.4f}",
    ]


def _difference(found: Difference | None) -> str:
    return NOTHING if found is None else f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def _measured(row: SystemRow, measures: Sequence[str]) -> list[str]:
    intervals = mean_intervals(row)
    cells = []
    for name in measures:
        mean = row.means.get(name)
        cell = NOTHING if mean is None else f"{mean:.4f}"
        if mean is not None and name in intervals:
            cell += " [{:.3f}, {:.3f}]".format(*intervals[name])
        cells.append(cell)
    return cells


def _retention(row: SystemRow) -> str:
    if row.retention is None:
        return NOTHING
    text = f"{100 * row.retention:.1f}"
    if row.retention_low is None or row.retention_high is None:
        return text
    return f"{text} [{100 * row.retention_low:.1f}, {100 * row.retention_high:.1f}]"


def _measures(collection: CollectionResult) -> list[str]:
    """The usual ones first, then what else was asked for."""
    found = list(dict.fromkeys(name for row in collection.rows for name in row.means))
    usual = [name for name in MEASURES if name in found]
    return usual + [name for name in found if name not in MEASURES]


def _there(collection: CollectionResult, measure: str) -> bool:
    return any(row.means.get(measure) is not None for row in collection.rows)


def _title(measure: str) -> str:
    return plain(SHOWN.get(measure, measure))


def _count(number: int | None) -> str:
    return NOTHING if number is None else f"{number:,}"
