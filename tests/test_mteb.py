"""A pack as a model of mteb, on a local task; nothing is fetched."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steelyard.encoders.documents.from_pack import open_dense_encoder
from steelyard.errors import InputError
from steelyard.eval.collection import read_judged
from steelyard.eval.evaluate import evaluate
from steelyard.eval.mteb_model import SteelyardModel
from steelyard.eval.mteb_search import SteelyardSearch
from steelyard.eval.mteb_task import local_task
from steelyard.eval.systems import parse_systems
from steelyard.indexer.loading.load import exact_index
from steelyard.plugin.fusion import Fusion
from steelyard.progress import SilentProgress
from tests.conftest import ROOT, Small

mteb = pytest.importorskip("mteb", reason="the extra mteb is not installed")
OURS = {"ndcg_at_10": "ndcg@10", "recall_at_100": "recall@100", "map_at_1000": "ap"}
CANDIDATES = 1000


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever calls out fails."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            raise AssertionError(f"a connection to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def ours(small: Small) -> dict[str, dict[str, float]]:
    """Our own evaluation of the same systems: system -> measure -> value, not rounded."""
    made = small.made
    results = evaluate(
        parse_systems("full,lookup,lookup+bm25,lookup+bm25+feedback"),
        read_judged(small.corpus),
        small.encoder,
        exact_index(made.manifest, made.shards, made.metadata),
        lambda: open_dense_encoder(made.metadata),
        SilentProgress(),
        fusion=Fusion(),
        candidates=CANDIDATES,
    )
    return {result.system.name: result.measured.means for result in results}


def scores(model: Any, small: Small) -> dict[str, float]:
    """What mteb finds."""
    found = mteb.evaluate(model, local_task(small.corpus), cache=None, show_progress_bar=False)
    (entry,) = found.task_results[0].scores["test"]
    return {name: entry[name] for name in OURS}


@pytest.mark.parametrize(
    ("system", "make"), [("lookup", SteelyardModel), ("lookup+bm25", SteelyardSearch)]
)
def test_mteb_measures_what_we_measure(
    small: Small, ours: dict[str, dict[str, float]], system: str, make: Any
) -> None:
    found = scores(make(small.pack), small)
    assert found == pytest.approx({m: ours[system][name] for m, name in OURS.items()}, abs=1e-4)


def test_the_protocols_of_mteb_are_met(small: Small) -> None:
    from mteb.models import EncoderProtocol, SearchProtocol

    model, search = SteelyardModel(small.pack), SteelyardSearch(small.pack)
    assert isinstance(model, EncoderProtocol)
    assert not isinstance(model, SearchProtocol)
    assert isinstance(search, SearchProtocol)
    assert not isinstance(search, EncoderProtocol)
    names = [m.mteb_model_meta.name for m in (model, search, SteelyardModel(small.pack, "full"))]
    assert len(set(names)) == 3
    assert model.mteb_model_meta.revision == small.made.metadata.pack_id


def test_each_side_by_its_own_encoder(small: Small) -> None:
    from mteb.types import PromptType

    model, text = SteelyardModel(small.pack), "does vitamin D prevent fractures?"
    tower = open_dense_encoder(small.made.metadata)
    batches = [{"text": [text]}, {"text": ["heavy documents", text]}]
    by_type = {kind: model.encode(batches, prompt_type=kind) for kind in (*PromptType, None)}
    query, document = by_type[PromptType.query], by_type[PromptType.document]
    np.testing.assert_array_equal(query[0], small.encoder.encode_query(text).dense[0])
    alone = tower.encode_document([text]).dense
    assert alone is not None
    assert (document[[0, 2]] @ alone[0]).min() > 0.999
    assert float(query[0] @ document[0]) < 0.999
    np.testing.assert_array_equal(by_type[None], document)
    pairs = model.similarity_pairwise(query, document)
    assert pairs.tolist() == pytest.approx(model.similarity(query, document).diagonal().tolist())


def test_what_cannot_be_is_refused(small: Small) -> None:
    pack = small.pack
    with pytest.raises(InputError, match="'magic'"):
        SteelyardModel(pack, "magic")
    with pytest.raises(InputError, match="no instruction 'magic'"):
        SteelyardModel(pack, instruction="magic")
    model, search = SteelyardModel(pack), SteelyardSearch(pack)
    with pytest.raises(InputError, match="mteb gave image"):
        model.encode([{"image": []}])
    with pytest.raises(InputError, match="int8 vectors"):
        model.encode([{"text": ["a"]}], precision="int8")
    queries = {"id": ["1"], "text": ["a"]}
    with pytest.raises(InputError, match="no corpus"):
        search.search(queries, top_k=10)
    with pytest.raises(InputError, match="re-ranking"):
        search.search(queries, top_k=10, top_ranked={"1": ["d"]})


def python_blocks(page: Path) -> Iterator[str]:
    """The Python blocks of a page."""
    for part in page.read_text(encoding="utf-8").split("```python\n")[1:]:
        yield part.split("```")[0]


def test_the_page_runs(
    small: Small,
    ours: dict[str, dict[str, float]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """docs/mteb.md, with the small collection and pack in the places that it names."""
    (tmp_path / "demo").mkdir()
    (tmp_path / "examples").mkdir()
    (tmp_path / "demo" / "pack").symlink_to(small.pack)
    (tmp_path / "examples" / "scifact").symlink_to(small.corpus)
    monkeypatch.chdir(tmp_path)
    blocks = list(python_blocks(ROOT / "docs" / "mteb.md"))
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "docs/mteb.md", "exec"), {})  # noqa: S102
    printed = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert [words[0] for words in printed] == ["lookup", "full", "lookup+bm25+feedback"]
    for system, ndcg in printed:
        assert float(ndcg) == pytest.approx(ours[system]["ndcg@10"], abs=1e-4)
