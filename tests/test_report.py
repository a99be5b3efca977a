"""Reports: nothing from the data is markup, the same input gives the same bytes."""

from __future__ import annotations

import base64
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from matplotlib import rc_context

from steelyard.cli import report as command
from steelyard.errors import InputError
from steelyard.eval.report.content import Plot, Table, plain
from steelyard.eval.report.files import write_report
from steelyard.eval.report.html import to_html
from steelyard.eval.report.intervals import mean_intervals
from steelyard.eval.report.markdown import to_markdown
from steelyard.eval.report.queries_plot import sorted_differences
from steelyard.eval.report.sections import make_report
from steelyard.eval.report.sizes_plots import unbeaten
from steelyard.eval.results import (
    MEASURES,
    CollectionResult,
    Comparison,
    EvaluationResult,
    SystemRow,
)
from steelyard.eval.sweeps.results import (
    FusionPoint,
    FusionResult,
    Quality,
    SizePoint,
    SizesResult,
    read_sweep,
    sweep_to_dict,
)
from tests.conftest import ROOT

HOSTILE = (
    "<script>alert('1')</script>|$\\frac$ `a` [x](javascript:y) <b>*&amp;*_</b> \x00\ud800\n# h"
)
QUERIES = 30


def row(system: str, add: float, **changes: object) -> SystemRow:
    values = np.clip(np.random.default_rng(1).random(QUERIES) + add, 0, 1)
    values[:10] = 0.5
    by_query = {name: values.tolist() for name in MEASURES}
    made = SystemRow(system, {name: float(values.mean()) for name in MEASURES}, 1234.5, by_query)
    return replace(made, **changes)  # type: ignore[arg-type]


def collection(name: str = "tiny/test", system: str = "lookup") -> CollectionResult:
    against = Comparison(-0.01, -0.03, 0.02, 0.00001, 0.04, 5, 10, 15)
    rows = [
        row("full", 0),
        row(
            system, -0.1, retention=0.97, retention_low=0.95, retention_high=1.01,
            retention_of="full", against_baseline=against,
        ),
    ]  # fmt: skip
    fusion = {"method": "min-max", "weights": [0.7, 0.3]}
    ids = [f"q{number}" for number in range(QUERIES)]
    return CollectionResult(name, ids, 50, 1, 1000, fusion, 3, "exact", "full", rows)


def sizes(dtype: str = "int8") -> SizesResult:
    points = [
        SizePoint(
            dims, terms, kind, 4 * dims, 13 * (terms or 99), 4 * dims + 13 * (terms or 99),
            dims * bytes_each, Quality(dims / 500, 0.8), Quality(0.3, 0.7),
            Quality(dims / 500 + (terms or 99) / 1000, 0.9),
        )
        for dims in (64, 128)
        for terms in (32, None)
        for kind, bytes_each in (("float32", 4), (dtype, 1))
    ]  # fmt: skip
    return SizesResult("tiny/test", 30, 50, "p", 128, "float32", 100, {}, points, "steelyard x")


def fusion(sparse: str = "bm25") -> FusionResult:
    points = [
        FusionPoint(dense, "min-max", weight, Quality(0.7 - (weight - 0.4) ** 2, 0.9))
        for dense in ("lookup", "full")
        for weight in (0.0, 0.5, 1.0)
    ]
    points.append(FusionPoint("lookup", "rrf", None, Quality(0.65, 0.9)))
    return FusionResult("tiny/test", 30, 50, "p", sparse, 0.7, 100, points, "steelyard y")


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def flat(tokens: list[Token]) -> list[Token]:
    return [one for token in tokens for one in (token, *flat(token.children or []))]


def test_names_from_the_data_are_never_markup(tmp_path: Path) -> None:
    result = EvaluationResult(
        [collection(HOSTILE, HOSTILE)], {HOSTILE: HOSTILE}, {HOSTILE: HOSTILE}
    )
    report = make_report(
        result, sizes(HOSTILE), fusion(HOSTILE), commands=[f"a ``` {HOSTILE}"], title=HOSTILE
    )
    shown = plain(HOSTILE)
    page = Page(to_html(report))
    assert {"script", "b", "a", "iframe", "link", "object"}.isdisjoint(page.tags)
    assert page.tags.count("img") == 5
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), name
        if name in ("src", "href"):
            assert (tag, value[:26]) == ("img", "data:image/svg+xml;base64,")
    assert page.text.count(shown) > 10

    write_report(report, tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text(encoding="utf-8")
    tokens = flat(MarkdownIt("commonmark").enable("table").parse(text))
    kinds = {token.type for token in tokens}
    assert {"html_block", "html_inline", "link_open", "code_inline", "em_open"}.isdisjoint(kinds)
    assert sum(token.type == "heading_open" for token in tokens) == 7
    seen = ["".join(child.content for child in token.children or []) for token in tokens]
    assert sum(shown in content for content in seen) > 10
    (fenced,) = (token.content for token in tokens if token.type == "fence")
    assert fenced.splitlines()[0] == f"a ``` {shown}"


def test_plots_are_whole_pictures_that_fetch_nothing() -> None:
    report = make_report(EvaluationResult([collection(HOSTILE, HOSTILE)]), sizes(), fusion())
    plots = [b for section in report.sections for b in section.blocks if isinstance(b, Plot)]
    assert [p.name for p in plots] == ["retention", "queries-1", "sizes", "tables", "fusion"]
    for plot in plots:
        picture = ElementTree.fromstring(plot.svg)  # noqa: S314
        tags = {element.tag.rpartition("}")[2] for element in picture.iter()}
        assert {"script", "image", "foreignObject", "a"}.isdisjoint(tags)
        for element in picture.iter():
            for name, value in element.attrib.items():
                assert not name.endswith("href") or value.startswith("#")
        assert plot.alt.endswith(".")
        assert len(plot.svg) < 100_000


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    result = EvaluationResult([collection(), collection("other/test")], versions={"numpy": "2"})
    first = write_report(make_report(result, sizes(), fusion()), tmp_path / "a")
    with rc_context({"font.size": 30, "svg.hashsalt": "x", "axes.grid": False}):
        second = write_report(make_report(result, sizes(), fusion()), tmp_path / "b")
    assert [path.name for path in first] == [path.name for path in second]
    assert len(first) == 8
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    text = first[0].read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([^)]*)\)", text))
    assert linked == {path.name for path in first if path.suffix == ".svg"}
    page = Page((tmp_path / "a" / "report.html").read_text(encoding="utf-8"))
    inside = [value for _, name, value in page.attributes if name == "src"]
    pictures = {base64.b64decode(value.partition(",")[2]) for value in inside}
    assert pictures == {path.read_bytes() for path in first if path.suffix == ".svg"}


def test_what_is_missing_is_left_out_with_a_sentence() -> None:
    bare = replace(
        collection(),
        rows=[SystemRow("bm25", {"ndcg@10": 0.5, "recall@1000": None})],
        baseline="bm25",
        documents=None,
        candidates=None,
        fusion={},
        failed={"full": "no model"},
    )
    text = to_markdown(make_report(EvaluationResult([bare], {"x/test": "no qrels"})), lambda p: "")
    for sentence in (
        "x/test could not be measured: no qrels",
        "full could not be measured: no model",
        "No system stands beside the same system with the full model: no retention.",
        "The result holds no values of single queries: no intervals.",
        "Nothing is compared with the baseline here.",
        "No such sweep was given: 'steelyard bench sizes --json FILE' makes one, --sizes FILE",
        "No such sweep was given: 'steelyard bench fusion --json FILE' makes one, --fusion FILE",
        "The evaluation does not say by which command it was made.",
        "The results do not say which versions they were made with.",
    ):
        assert sentence in text
    assert "R@1000" not in text
    assert "![" not in text
    assert "No collection could be measured." in to_html(make_report(EvaluationResult([])))


def test_tables_say_what_the_results_say() -> None:
    other = collection("other/test")
    other = replace(other, rows=[*other.rows, row("only here", 0, means={"P@5": 0.125})])
    report = make_report(EvaluationResult([collection(), other]), sizes(), fusion())
    tables = [b for section in report.sections for b in section.blocks if isinstance(b, Table)]
    for table in tables:
        assert {len(cells) for cells in table.rows} == {len(table.columns)}, table.caption
    lines = to_markdown(report, lambda plot: plot.name).splitlines()
    heads = [at for at, line in enumerate(lines) if line.startswith("| --- |")]
    assert len(heads) == len(tables)
    for at in heads:
        below = [line for line in lines[at - 1 :] if line.startswith("|") or not line]
        table_lines = below[: below.index("")]
        assert len({line.count("|") for line in table_lines}) == 1
    overview, means, first, compared, second, *_ = tables
    assert overview.rows[0][:6] == ["tiny/test", "30", "50", "1", "1,000", "min-max 0.7 / 0.3"]
    assert [cells[0] for cells in means.rows] == ["full", "lookup"]
    assert first.columns == [
        "system", "nDCG@10", "R@100", "R@1000", "RR@10", "AP", "retention %", "queries/s",
    ]  # fmt: skip
    assert first.rows[1][-2:] == ["97.0 [95.0, 101.0]", "1,234"]
    assert second.columns[6] == "P@5"
    assert second.rows[2][6] == "0.1250"
    assert compared.rows == [
        ["lookup", "-0.0100", "[-0.0300, +0.0200]", "< 0.0001", "0.04", "5", "10", "15"]
    ]


def test_intervals_hold_their_means_and_narrow_with_queries() -> None:
    made = row("full", 0)
    intervals = mean_intervals(made)
    assert set(intervals) == set(MEASURES)
    low, high = intervals["ap"]
    mean = made.means["ap"]
    assert mean is not None
    assert low < mean < high
    deviation = np.std(made.by_query["ap"]) / np.sqrt(QUERIES)
    assert (high - low) / deviation == pytest.approx(2 * 1.96, rel=0.05)
    assert mean_intervals(replace(made, by_query={"ap": [0.25] * 9})) == {"ap": (0.25, 0.25)}
    assert mean_intervals(replace(made, by_query={})) == {}


def test_wins_and_losses_are_sorted() -> None:
    tiny = replace(
        collection(),
        rows=[
            row("full", 0, by_query={"ndcg@10": [0.5, 0.5, 0.5]}),
            row("lookup", 0, by_query={"ndcg@10": [0.25, 1.0, 0.5]}),
        ],
    )
    assert {k: v.tolist() for k, v in sorted_differences(tiny).items()} == {
        "lookup": [0.5, 0, -0.25]
    }


def test_unbeaten_points_by_hand() -> None:
    def point(size: int, ndcg: float) -> SizePoint:
        quality = Quality(ndcg, ndcg)
        return SizePoint(1, 1, "int8", 0, 0, size, 1, quality, quality, quality)

    points = [point(5, 0.5), point(3, 0.4), point(4, 0.3), point(5, 0.6), point(9, 0.6)]
    assert unbeaten(points) == {1, 3}


def test_the_figures_of_the_docs_are_read() -> None:
    figures = ROOT / "docs" / "figures"
    assert len(read_sweep(figures / "sizes-scifact.json", SizesResult).points) == 48
    assert len(read_sweep(figures / "fusion-scifact.json", FusionResult).points) == 44
    assert len(read_sweep(figures / "fusion-scifact-train.json", FusionResult).points) == 22


def test_the_command_joins_files_and_refuses_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = []
    for name in ("one", "two"):
        value = EvaluationResult([collection(f"{name}/test")]).to_dict() | {"command": f"c {name}"}
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(value), encoding="utf-8")
    swept = tmp_path / "sizes.json"
    swept.write_text(json.dumps(sweep_to_dict(sizes())), encoding="utf-8")
    command.report(paths, tmp_path / "x.html", sizes=swept)
    assert capsys.readouterr().out.split() == [str(tmp_path / "x.html")]
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "<pre><code>c one\nc two\nsteelyard x</code></pre>" in text
    assert "Means over the 2 collections" in text
    with pytest.raises(InputError, match="one/test is in the results more than once"):
        command.report([paths[0], paths[0]], tmp_path)
    with pytest.raises(InputError, match=r"cannot write a report to .*x\.pdf"):
        command.report(paths, tmp_path / "x.pdf")
    with pytest.raises(InputError, match="no result of an evaluation"):
        command.report([swept], tmp_path)
    with pytest.raises(InputError, match="expected 'fusion'"):
        command.report(paths, tmp_path, fusion=swept)
