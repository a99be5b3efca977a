"""Engines of other packages: the page's own example, installed as a package would be."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from steelyard.errors import EngineError, InputError
from steelyard.indexer.loading.load import load_shards
from steelyard.plugin.searcher import Searcher
from steelyard.plugin.urls import open_engine
from steelyard.progress import SilentProgress
from tests.conftest import ROOT, Small


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    page = (ROOT / "docs" / "adding-an-engine.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (points,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (line,) = re.findall(r'^ram = "(.+)"$', points, re.MULTILINE)
    (tmp_path / "steelyard_ram.py").write_text(code, encoding="utf-8")
    info = tmp_path / "steelyard_ram-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: steelyard-ram\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        f"[steelyard.engines]\nram = {line}\nbroken = steelyard_ram:nothing\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("steelyard_ram", None)


def test_the_pages_engine_is_found_and_searched(small: Small, package: None) -> None:
    engine = open_engine("ram:?name=demo")
    made = small.made
    load_shards(made.manifest, made.shards, made.metadata, engine, SilentProgress())
    with Searcher.open(small.pack, "ram:?name=demo") as searcher:
        title = next(iter(searcher.index().export().documents)).title
        assert searcher.search(title, feedback=3).hits[0].document is not None
        assert searcher.index().count() == 120


def test_one_that_cannot_be_loaded(package: None) -> None:
    with pytest.raises(EngineError, match=r"the engine 'broken' .* cannot be loaded"):
        open_engine("broken:?name=demo")
    with pytest.raises(InputError, match="no engine for 'nothing'") as caught:
        open_engine("nothing:?name=demo")
    assert "ram" in caught.value.hint
