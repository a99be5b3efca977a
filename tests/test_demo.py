"""The main job on the whole example collection: the demo itself, with its figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from steelyard.eval.results import read_result
from tests.conftest import SCIFACT, Demo
from tests.test_cli import ok

pytestmark = pytest.mark.model


def test_the_demo_meets_its_figures(demo: Demo, tmp_path: Path) -> None:
    result, output = demo.report, demo.output
    ndcg = {row["system"]: row["ndcg@10"] for row in result["rows"]}
    assert list(ndcg) == [
        "full",
        "lookup",
        "bm25",
        "full+bm25",
        "lookup+bm25",
        "lookup+bm25+feedback",
        "full+bm25+feedback",
    ]
    assert ndcg["full"] == pytest.approx(0.645, abs=0.003)
    assert ndcg["bm25"] == pytest.approx(0.680, abs=0.002)
    assert ndcg["lookup"] >= 0.640
    assert ndcg["lookup+bm25"] >= 0.695
    assert ndcg["lookup+bm25"] >= 0.99 * ndcg["full+bm25"]
    assert ndcg["lookup+bm25+feedback"] >= 0.700
    assert result["peak_memory_gb"] <= 3
    assert result["agreement"]["same"] == result["agreement"]["queries"] == 5
    assert output.count("score") == 9
    _smaller_tables_rank_alike(demo, tmp_path, ndcg["lookup"])
    line = next(line for line in output.splitlines() if "search 'your words'" in line)
    assert "--feedback 3" in line


def _smaller_tables_rank_alike(demo: Demo, folder: Path, expected: float) -> None:
    """float16 and int8 tables serve the same index, and lose next to nothing."""
    url = f"milvus-lite://{demo.folder / 'index.db'}?name=demo"
    for dtype in ("float16", "int8"):
        pack, report = folder / dtype, folder / f"{dtype}.json"
        ok("pack", "convert", demo.pack, "--dtype", dtype, "--out", pack)
        ok("eval", SCIFACT, "--pack", pack, "--to", url, "--systems", "lookup", "--json", report)
        (row,) = read_result(report).collections[0].rows
        assert row.means["ndcg@10"] == pytest.approx(expected, abs=0.003)
