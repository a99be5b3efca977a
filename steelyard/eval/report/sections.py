"""Results to the sections of a report; what is missing is left out with a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from steelyard.eval.report.content import Block, Code, Plot, Report, Section, Table, Text, plain
from steelyard.eval.report.fusion_plot import fusion_plot
from steelyard.eval.report.inputs import joined_versions
from steelyard.eval.report.intervals import SETTINGS
from steelyard.eval.report.queries_plot import queries_plot
from steelyard.eval.report.retention_plot import retention_plot
from steelyard.eval.report.sizes_plots import index_plot, table_plot
from steelyard.eval.report.tables import (
    comparison_table,
    fusion_table,
    mean_table,
    measures_table,
    overview_table,
    sizes_table,
)
from steelyard.eval.results import CollectionResult, EvaluationResult
from steelyard.eval.sweeps.results import FusionResult, SizesResult

TITLE = "Evaluation report"
_ABSENT = (
    "No such sweep was given: 'steelyard bench {0} --json FILE' makes one, --{0} FILE shows it."
)


def make_report(
    result: EvaluationResult,
    sizes: SizesResult | None = None,
    fusion: FusionResult | None = None,
    *,
    commands: Sequence[str] = (),
    title: str = TITLE,
) -> Report:
    """A report of one evaluation, and of sweeps where there are any.

    Args:
        result: at least one collection, or why there is none.
        sizes, fusion: what ``bench sizes`` and ``bench fusion`` found.
        commands: that made the result; the sweeps know their own.
        title: of the report.
    """
    swept = [sweep.command for sweep in (sizes, fusion) if sweep is not None]
    told = [each for each in (result, sizes, fusion) if each is not None]
    sections = [
        _overview(result),
        _retention(result.collections),
        *(_collection(each, at) for at, each in enumerate(result.collections, start=1)),
        _sizes(sizes),
        _fusion(fusion),
        _made(joined_versions([each.versions for each in told]), commands, swept),
    ]
    return Report(plain(title), sections)


def _overview(result: EvaluationResult) -> Section:
    blocks: list[Block] = []
    if result.collections:
        blocks.append(overview_table(result.collections))
    else:
        blocks.append(Text("No collection could be measured."))
    blocks += [
        Text(f"{plain(name)} could not be measured: {plain(why)}")
        for name, why in result.failed.items()
    ]
    means = mean_table(result.collections)
    if means is not None:
        blocks.append(means)
    return Section("Overview", blocks)


def _retention(collections: Sequence[CollectionResult]) -> Section:
    plot = retention_plot(collections)
    if plot is None:
        text = Text("No system stands beside the same system with the full model: no retention.")
        return Section("Retention", [text])
    text = Text(
        "Retention is a system's nDCG@10 as a share of that of the same system with the full "
        "model in place of the look-up; bars are bootstrap intervals over queries, at the "
        "evaluation's confidence (95 % unless it was told otherwise)."
    )
    return Section("Retention", [text, plot])


def _collection(collection: CollectionResult, number: int) -> Section:
    blocks: list[Block] = [measures_table(collection)]
    if any(row.by_query for row in collection.rows):
        blocks.append(
            Text(
                f"In brackets: 95 % percentile bootstrap intervals, {SETTINGS.resamples:,} "
                "resamples of the queries. They tell how far a mean depends on these queries; "
                "systems are compared below, query by query."
            )
        )
    else:
        blocks.append(Text("The result holds no values of single queries: no intervals."))
    blocks += [
        Text(f"{plain(name)} could not be measured: {plain(why)}")
        for name, why in collection.failed.items()
    ]
    comparison = comparison_table(collection)
    if comparison is not None:
        blocks += [
            comparison,
            Text(
                "p: two-sided paired t-test over queries; Holm: corrected for all systems of "
                "this table. The interval is a bootstrap of the paired differences at the "
                "evaluation's confidence (95 % unless it was told otherwise), not corrected."
            ),
        ]
    else:
        blocks.append(Text("Nothing is compared with the baseline here."))
    plot: Plot | None = queries_plot(collection, f"queries-{number}")
    if plot is not None:
        blocks.append(plot)
    return Section(plain(collection.collection), blocks)


def _sizes(sizes: SizesResult | None) -> Section:
    title = "Quality against size"
    if sizes is None or not sizes.points:
        return Section(title, [Text(_ABSENT.format("sizes"))])
    text = (
        f"{plain(sizes.collection)}, {sizes.documents:,} documents, {sizes.queries:,} queries. "
        "Fewer dimensions are the first of the stored vectors and of the table, at unit length "
        "again: a model that was not trained for that (MRL) loses more. Fewer terms are the "
        "heaviest of each document. Index: 4 bytes a component and 13 bytes a posting; texts and "
        "the vectors' graph come on top. Table: bytes of the query side's dense table. 'From the "
        "largest': the fused nDCG@10 less that of the largest index, with a 95 % bootstrap "
        "interval over queries. The last column marks what nothing beats that is as small, index "
        "and table together."
    )
    return Section(title, [Text(text), index_plot(sizes), table_plot(sizes), sizes_table(sizes)])


def _fusion(fusion: FusionResult | None) -> Section:
    title = "Fusion weight"
    if fusion is None or not fusion.points:
        return Section(title, [Text(_ABSENT.format("fusion"))])
    text = (
        f"{plain(fusion.collection)}, {fusion.queries:,} queries, {fusion.candidates:,} "
        "candidates of each arm. A best weight read off these queries is a weight fitted to "
        "them: choose it on other queries."
    )
    return Section(title, [Text(text), fusion_plot(fusion), fusion_table(fusion)])


def _made(versions: Mapping[str, str], commands: Sequence[str], swept: Sequence[str]) -> Section:
    blocks: list[Block] = []
    if not commands:
        blocks.append(Text("The evaluation does not say by which command it was made."))
    known = [plain(command) for command in (*commands, *swept) if command]
    if known:
        blocks.append(Code("\n".join(known)))
    if versions:
        rows = [[plain(name), plain(version)] for name, version in versions.items()]
        blocks.append(Table("Versions", ["package", "version"], rows))
    else:
        blocks.append(Text("The results do not say which versions they were made with."))
    return Section("How it was made", blocks)
