"""The table of an evaluation on the terminal."""

from __future__ import annotations

from steelyard.cli.output import print_rows, status
from steelyard.eval.results import CollectionResult

_NONE = "-"


def print_collection(result: CollectionResult, confidence: float) -> None:
    """Measures; then retention, and the difference from the baseline in nDCG@10 with its tests.

    Args:
        result: of one collection.
        confidence: of the intervals.
    """
    print_rows(f"{result.collection}, {len(result.queries):,} queries", *_measures(result))
    if len(result.rows) > 1:
        title = f"nDCG@10 against {result.baseline}, {confidence:.0%} intervals"
        print_rows(title, *_comparisons(result))
    for note in _notes(result):
        status.print(f"  {note}", markup=False)


def _measures(result: CollectionResult) -> tuple[list[str], list[list[str]]]:
    measures = list(result.rows[0].means)
    timed = any(row.encode_qps is not None for row in result.rows)
    columns = ["system", *map(_title, measures), *["q/s"] * timed]
    rows = [
        [
            row.system,
            *(_number(row.means.get(name), "{:.4f}") for name in measures),
            *[_number(row.encode_qps, "{:,.0f}")] * timed,
        ]
        for row in result.rows
    ]
    return columns, rows


def _comparisons(result: CollectionResult) -> tuple[list[str], list[list[str]]]:
    kept = any(row.retention is not None for row in result.rows)
    columns = ["system", *["kept"] * kept, "differs", "interval", "p (Holm)", "won/lost"]
    rows = []
    for row in result.rows:
        cells = [row.system, *[_number(row.retention, "{:.1%}")] * kept]
        found = row.against_baseline
        if found is None:
            cells += [_NONE] * 4
        else:
            cells += [
                f"{found.difference:+.4f}",
                f"{found.low:+.4f} {found.high:+.4f}",
                f"{found.p_holm:.2g}",
                f"{found.wins}/{found.losses}",
            ]
        rows.append(cells)
    return columns, rows


def _title(measure: str) -> str:
    """``recall@100`` as it is printed: R@100."""
    return measure.upper().replace("RECALL", "R").replace("NDCG", "nDCG")


def _number(value: float | None, form: str) -> str:
    return _NONE if value is None else form.format(value)


def _notes(result: CollectionResult) -> list[str]:
    """What the table cannot say."""
    notes = []
    if result.missing_queries:
        notes.append(f"{result.missing_queries:,} judged queries are not in the query file")
    left_out = sorted({n for row in result.rows for n, mean in row.means.items() if mean is None})
    if left_out:
        names = ", ".join(map(_title, left_out))
        deep = "" if result.candidates is None else f": --candidates is {result.candidates:,}"
        notes.append(f"{names} looks deeper than some rankings go{deep}")
    return notes
