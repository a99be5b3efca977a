"""The benchmarks of engines run, and what they report belongs together; no clock is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steelyard.errors import InputError
from steelyard.eval.bench.passages import windows
from tests.conftest import Small
from tests.test_cli import fails, ok


def test_loading_and_searching(small: Small, tmp_path: Path) -> None:
    url, report = f"milvus-lite://{tmp_path / 'bench.db'}?name=demo", tmp_path / "report.json"
    to = ["--pack", small.pack, "--to", url, "--json", report]
    ok("bench", "bulk", small.corpus, *to, "--rounds", 1)
    bulk = json.loads(report.read_text(encoding="utf-8"))
    assert (bulk["documents"], bulk["arms"]) == (120, ["dense", "sparse"])
    assert bulk["ratio"] == pytest.approx(
        bulk["ours_per_second"] / bulk["bare_per_second"], rel=0.01
    )
    ok("index", small.corpus, *to)
    ok("bench", "search", small.corpus, *to, "--queries", 8, "--candidates", "20,50")
    search = json.loads(report.read_text(encoding="utf-8"))
    assert [result["candidates"] for result in search["results"]] == [20, 50]
    for result in search["results"]:
        taken = result["milliseconds"]
        slower = max(taken["dense"], taken["sparse"])
        assert result["hybrid_over_slower_arm"] == pytest.approx(
            taken["hybrid"] / slower, rel=0.01
        )
    fails(2, "cannot read --candidates", "bench", "search", small.corpus, *to,
          "--candidates", "many")  # fmt: skip


def test_neighbours_of_an_exact_engine(small: Small, tmp_path: Path) -> None:
    url, report = f"milvus-lite://{tmp_path / 'recall.db'}?name=demo", tmp_path / "report.json"
    ok("bench", "recall", small.corpus, "--pack", small.pack, "--to", url, "--vectors", 1000,
       "--queries", 10, "--json", report)  # fmt: skip
    told = json.loads(report.read_text(encoding="utf-8"))
    assert (told["vectors"], told["queries"]) == (1000, 10)
    assert told["recall@100_of_100"] >= 0.995


def test_windows_are_spread_over_the_texts() -> None:
    texts = ["a b c d e", "f", "g h i"]
    assert windows(texts, 3, 2) == ["a b", "d e", "h i"]
    assert len(set(windows(texts, 7, 2))) == 7
    with pytest.raises(InputError, match="7 windows of 2 words, 8 were asked for"):
        windows(texts, 8, 2)
