"""The page docs/engines/lucene.md on a small collection: its commands, and stock Pyserini."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from steelyard.eval.results import read_result
from steelyard.plugin.urls import open_engine
from steelyard.types import SparseVectors
from tests.conftest import ROOT, Small
from tests.test_cli import fails, ok

pytestmark = [pytest.mark.lucene]

PAGE = ROOT / "docs" / "engines" / "lucene.md"


@pytest.fixture(scope="module")
def place(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``pack`` and, made by the command line, ``index``."""
    folder = tmp_path_factory.mktemp("lucene")
    (folder / "pack").symlink_to(small.pack)
    report = folder / "index.json"
    ok("index", small.corpus, "--pack", small.pack, "--to", url(folder), "--json", report)
    result = json.loads(report.read_text(encoding="utf-8"))
    assert (result["read"], result["indexed"], result["rejected"]) == (120, 120, 0)
    return folder


def url(folder: Path) -> str:
    return f"lucene:{folder / 'index'}?name=scifact"


def test_the_commands(small: Small, place: Path, tmp_path: Path) -> None:
    to = ("--pack", small.pack, "--to", url(place))
    first = json.loads(small.corpus.joinpath("corpus.jsonl").read_text().splitlines()[0])
    hits, results = tmp_path / "hits.json", tmp_path / "results.json"
    assert first["title"] in ok("search", first["title"], *to, "--feedback", 3, "--json", hits)
    best = json.loads(hits.read_text(encoding="utf-8"))["hits"][0]
    assert best["document"]["title"] == first["title"]
    figures = []
    for search in ("exact", "engine"):
        ok("eval", small.corpus, *to, "--systems", "lookup,bm25,lookup+bm25+feedback",
           "--search", search, "--json", results)  # fmt: skip
        rows = read_result(results).collections[0].rows
        figures.append([(r.system, r.means["ndcg@10"], r.means["recall@100"]) for r in rows])
    assert figures[0] == figures[1]
    again = ok("index", small.corpus, "--pack", small.pack, "--to", url(place))
    assert "already there" in again.replace("\n", " ")
    fails(4, "no Lucene folder at", "search", "x", "--pack", small.pack, "--to",
          f"lucene:{tmp_path / 'none'}?name=scifact")  # fmt: skip


def test_stock_pyserini_searches_the_index(small: Small, place: Path) -> None:
    """The page's own example, as it stands."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    environment = {k: v for k, v in os.environ.items() if k != "OPENAI_API_KEY"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=place,
        env={**environment, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    found = [line.split() for line in done.stdout.splitlines()]
    query = small.encoder.encode_query("vitamin D and bone density").sparse
    rounded = (np.round(query.weights * 100) / 100).astype(np.float32)
    weights = SparseVectors(query.indptr, query.ids, rounded, query.vocabulary_size)
    engine = open_engine(url(place))
    generation = engine.resolve()
    assert generation is not None
    expected = engine.open(generation).sparse.search(weights, 3)[0]
    assert [identifier for identifier, _ in found] == expected.ids
    assert len(found) == 3
    np.testing.assert_allclose([float(s) for _, s in found], expected.scores, rtol=1e-5)
