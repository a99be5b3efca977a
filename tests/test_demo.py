"""The main job on the whole example collection: the demo itself, with its figures."""

from __future__ import annotations

import pytest

from steelyard.cli.demo_llm import shipped_example, why_not
from steelyard.eval.results import read_result
from tests.conftest import SCIFACT, Demo
from tests.test_cli import ok

pytestmark = pytest.mark.model


def test_the_demo_meets_its_figures(demo: Demo) -> None:
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
    _smaller_tables_rank_alike(demo, ndcg)
    line = next(line for line in output.splitlines() if "search 'your words'" in line)
    assert "--feedback 3" in line


@pytest.mark.llm
def test_the_language_model_beside_it(demo: Demo) -> None:
    """The shipped adapter, on the 1,000 abstracts."""
    if not shipped_example().adapter.exists():
        pytest.skip("no adapter ships with this checkout")
    assert why_not(shipped_example()) is None
    shown = demo.report["language_model"]
    assert (shown["collection"], shown["documents"]) == ("scifact-1000/test", 1000)
    assert len(shown["queries"]) == 300
    ndcg = {row["system"]: row["ndcg@10"] for row in shown["rows"]}
    for table in ("lookup", "refined"):
        assert ndcg[f"SmolLM2 {table}+bm25"] > ndcg["bm25"] + 0.01
        assert ndcg[f"SmolLM2 {table}+lm-head"] > ndcg[f"SmolLM2 {table}"]
    assert ndcg["SmolLM2 refined"] >= 0.88 * ndcg["SmolLM2 full"]
    assert ndcg["SmolLM2 refined"] > ndcg["SmolLM2 lookup"] + 0.03
    # Every vector that the refining asked for ships: the model read no pseudo-query.
    shipped, used = (
        {path.relative_to(folder) for path in folder.rglob("*.npy")}
        for folder in (shipped_example().pseudo_queries, demo.folder / "smollm2-pseudo-queries")
    )
    assert shipped == used
    assert demo.report["collection"] == "scifact/test"


def _smaller_tables_rank_alike(demo: Demo, ndcg: dict[str, float]) -> None:
    """The example's systems, where the demo stands; float16 and int8 tables lose next to nothing.

    They serve the same index, in one table with the others. What was measured before is measured
    again.
    """
    folder = demo.folder.parent / "examples"
    folder.mkdir()
    (folder / "scifact").symlink_to(SCIFACT)
    text = (SCIFACT.parent / "systems.yaml").read_text(encoding="utf-8")
    more = "systems:"
    for dtype in ("float16", "int8"):
        ok("pack", "convert", demo.pack, "--dtype", dtype, "--out", folder / dtype)
        more += f"\n  - {{name: {dtype}, dense: lookup, pack: {dtype}}}"
    config, report = folder / "systems.yaml", folder / "eval.json"
    config.write_text(text.replace("systems:", more, 1), encoding="utf-8")
    ok("eval", "--config", config, "--json", report)
    (measured,) = read_result(report).collections
    again = {row.system: row.means["ndcg@10"] for row in measured.rows}
    for dtype in ("float16", "int8"):
        assert again[dtype] == pytest.approx(ndcg["lookup"], abs=0.003)
        assert measured.row(dtype).retention_of == "full"
    same = set(ndcg) & set(again)
    assert len(same) == 5
    assert {name: again[name] for name in same} == {name: ndcg[name] for name in same}
