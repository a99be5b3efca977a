"""The benchmark of peers: each gives what it should, and none costs the others their figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from steelyard.errors import InputError, MissingExtraError
from steelyard.eval.bench.peers.contenders import PEERS, choose
from steelyard.eval.bench.peers.peer import Setting
from steelyard.eval.bench.peers.result import Contender, PeersResult, Speed, markdown
from steelyard.eval.bench.peers.trouble import trouble
from steelyard.eval.bench.peers.turns import race
from tests.conftest import ROOT, write_jsonl
from tests.tiny_causal import write_model
from tests.tiny_tower import write_tiny_tower, write_tiny_tower_pack

TEXTS = ["heavy arm", "the light arms", "balance the document", "light light query", "é !"]
WARM = ["heavy balance", "a query", "the arm"]
STATIC = ["model2vec", "static-embedding"]
SPARSE = ["sparse-static", *(["fastembed-sparse"] if find_spec("fastembed") else [])]
OTHERS = ["tokenizer", "bm25s-tokenise", "bm25s"]
OURS = ["look-up", "look-up-sparse", "look-up-both", "look-up-cold"]
REFUSE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "model2vec":
            raise ModuleNotFoundError("No module named 'model2vec'", name="model2vec")

sys.meta_path.insert(0, Refuse())
"""


def setting_of(pack: Path, folder: Path, llm: str = "no-such-package") -> Setting:
    corpus = folder / "corpus"
    corpus.mkdir()
    lines: list[Any] = [{"_id": str(i), "title": "", "text": t} for i, t in enumerate(WARM * 4)]
    write_jsonl(corpus / "corpus.jsonl", lines)
    write_jsonl(
        corpus / "queries.jsonl", [{"_id": str(i), "text": t} for i, t in enumerate(TEXTS)]
    )
    return Setting(str(pack), str(corpus), llm)


def raced(names: list[str], setting: Setting, folder: Path) -> dict[str, Any]:
    for name in names:
        (folder / name).mkdir(parents=True)
        PEERS[name].prepare(setting, folder / name)
    found = race([PEERS[name] for name in names], setting, folder, TEXTS, WARM, [1, 2, 1024], 1)
    return dict(found["contenders"])


def test_peers_give_our_vectors_and_their_figures(tiny_pack: Path, tmp_path: Path) -> None:
    setting = setting_of(tiny_pack, tmp_path)
    found = raced([*OURS, *STATIC, *SPARSE, *OTHERS], setting, tmp_path / "peers")
    for name, result in found.items():
        assert set(result["speed"]) == {"1", "2", "1024"}, (name, result)
        assert result["speed"]["2"]["batch"] == 2
        assert result["speed"]["1024"]["batch"] == len(TEXTS), "a batch is never called larger"
    assert {found[name]["dims"] for name in ["look-up", *STATIC]} == {8}
    assert all(found[name]["difference"] < 1e-6 for name in [*STATIC, *SPARSE])
    # "heavy" and "the" begin a query, as they begin one of the other texts; "arm" follows both.
    assert 0 < found["look-up"]["facts"]["known words"] < 1
    assert found["look-up"]["facts"] == found["look-up-both"]["facts"]


def test_other_vectors_than_ours_are_no_figures(tiny_pack: Path, tmp_path: Path) -> None:
    setting = setting_of(tiny_pack, tmp_path)
    folder = tmp_path / "peers"
    (folder / "model2vec").mkdir(parents=True)
    PEERS["model2vec"].prepare(setting, folder / "model2vec")
    config = folder / "model2vec" / "model" / "config.json"
    changed = json.loads(config.read_text(encoding="utf-8")) | {"normalize": False}
    config.write_text(json.dumps(changed), encoding="utf-8")
    peers = [PEERS["look-up"], PEERS["model2vec"]]
    found = race(peers, setting, folder, TEXTS, WARM, [1], 1)["contenders"]
    assert "differ from ours" in found["model2vec"]["failed"]
    assert set(found["look-up"]["speed"]) == {"1"}


def test_full_models_are_asked_few_queries(tmp_path: Path) -> None:
    words = sorted({word for text in TEXTS for word in text.split()})
    pack = write_tiny_tower_pack(
        tmp_path / "pack", write_tiny_tower(tmp_path / "tower", words), words
    )
    llm = write_model(tmp_path / "llm")
    setting = setting_of(pack, tmp_path, str(llm))
    found = raced(["look-up", "teacher", "llm"], setting, tmp_path / "peers")
    assert found["teacher"]["dims"] == found["look-up"]["dims"] == 16
    assert found["llm"]["dims"] == 32
    assert found["llm"]["speed"]["1"]["queries"] == len(TEXTS)


def test_a_missing_peer_is_left_out_with_its_install_line(tiny_pack: Path, tmp_path: Path) -> None:
    setting = setting_of(tiny_pack, tmp_path)
    (tmp_path / "refuse").mkdir()
    (tmp_path / "refuse" / "sitecustomize.py").write_text(REFUSE, encoding="utf-8")
    command = [
        sys.executable, "-c", "from steelyard.cli import main; main()", "bench", "peers",
        "--pack", tiny_pack, "--corpus", setting.corpus, "--only", "model2vec,tokenizer,llm",
        "--queries", Path(setting.corpus) / "queries.jsonl", "--warm", "3", "--rounds", "1",
        "--starts", "1", "--llm", "no-such-package", "--json", tmp_path / "peers.json",
        "--markdown", tmp_path / "peers.md",
    ]  # fmt: skip
    path = os.pathsep.join([str(tmp_path / "refuse"), str(ROOT)])
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    assert "model2vec: left out, model2vec is not installed: pip install model2vec" in done.stderr
    result = json.loads((tmp_path / "peers.json").read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in result["contenders"]}
    assert list(rows) == ["look-up", "tokenizer", "model2vec", "llm"]
    assert rows["model2vec"]["missing"] == "model2vec"
    assert rows["model2vec"]["speed"] == {}
    assert rows["llm"]["missing"] == "no-such-package"
    for name in ("look-up", "tokenizer"):
        row = rows[name]
        assert set(row["speed"]) == set(row["one_thread"]) == {"1", "32", "1024"}
        assert row["speed"]["1"]["per_second"] > 0
        assert row["disk_bytes"] > 0
        assert row["start_seconds"] > 0
        if sys.platform == "linux":
            assert row["peak_bytes"] > row["bare_peak_bytes"] > 0
    assert set(result["split"]) == {"token ids", "sum of rows", "normalise"}
    table = (tmp_path / "peers.md").read_text(encoding="utf-8").splitlines()
    assert [line.split(" | ")[0] for line in table] == [
        "| contender", "| ---", "| look-up, dense", "| tokenizer alone"
    ]  # fmt: skip


def test_the_fastest_of_the_same_size_is_what_counts() -> None:
    def row(name: str, gives: str, dims: int | None, microseconds: float) -> Contender:
        speed = Speed(1024, 1024, 3, microseconds)
        return Contender(name, name, gives, "", dims=dims, speed={1024: speed})

    contenders = [
        row("look-up", "dense", 8, 5.0),
        row("tokenizer", "token ids", None, 4.0),
        row("smaller", "dense", 4, 6.0),
        row("slower", "dense", 8, 40.0),
        row("fastest", "dense", 8, 20.0),
    ]
    result = PeersResult("tiny", {}, 1, 5, 3, 1, contenders)
    assert result.against() == {"1024": {"fastest": "fastest", "times": 4.0}}
    assert json.loads(json.dumps(result.to_dict()))["against"]["1024"]["times"] == 4.0
    assert "| fastest | dense |  |  | 50,000 |" in markdown(result)


def test_contenders_are_chosen_by_name() -> None:
    assert [peer.name for peer in choose("bm25s, model2vec")] == ["look-up", "model2vec", "bm25s"]
    assert [peer.name for peer in choose(None)] == list(PEERS)
    with pytest.raises(InputError, match="no contender bm26"):
        choose("bm26")


def test_trouble_tells_missing_from_failed() -> None:
    with pytest.raises(MissingExtraError) as caught:
        from_extra()
    assert trouble(caught.value) == {"missing": "no_such_module"}
    assert trouble(ValueError("a\nb")) == {"failed": "ValueError: a"}


def from_extra() -> None:
    from steelyard.errors import needs_extra

    with needs_extra("onnx"):
        import no_such_module  # type: ignore[import-not-found]  # noqa: F401
