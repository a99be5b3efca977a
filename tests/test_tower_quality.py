"""A tower's quality without pack and index: the figures that ``steelyard eval`` would give."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from steelyard.encoders.causal.build import BuildJob, build_pack
from steelyard.encoders.causal.tower import CausalEncoder
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import InputError
from steelyard.eval.ablations.variants import VARIANTS
from steelyard.eval.evaluate import evaluate
from steelyard.eval.systems import parse_systems
from steelyard.eval.tower_quality import SYSTEMS, TowerJudge
from steelyard.eval.tower_vectors import ReadingSettings, read_judged_collection, read_with
from steelyard.plugin.engine import Generation
from steelyard.plugin.exact import ExactIndex
from steelyard.plugin.fusion import Fusion
from steelyard.plugin.quantise import quantise
from steelyard.progress import SilentProgress
from steelyard.training.lora import add_adapter
from steelyard.training.settings import AdapterSettings
from steelyard.types import EncodedDocuments
from tests.conftest import scifact_lines
from tests.test_training_blocks import towers_of
from tests.tiny_causal import write_model

TASK = "find the abstract"
LENGTH, TERMS = 40, 24
SILENT = SilentProgress()


def write_collection(folder: Path, documents: int = 60, queries: int = 40) -> Path:
    """Abstracts; a query is the first words of one, and one more is answered by none of them."""
    lines = scifact_lines(documents)
    (folder / "qrels").mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as stream:
        for line in lines:
            stream.write(
                json.dumps({"_id": line["_id"], "title": "", "text": line["text"]}) + "\n"
            )
    judged = [(f"q{i}", " ".join(x["text"].split()[:7]), x["_id"]) for i, x in enumerate(lines)]
    judged = [*judged[:queries], ("lost", "of another collection", "nowhere")]
    with (folder / "queries.jsonl").open("w", encoding="utf-8") as stream:
        for identifier, text, _ in judged:
            stream.write(json.dumps({"_id": identifier, "text": text}) + "\n")
    rows = ["query-id\tcorpus-id\tscore", *(f"{q}\t{d}\t1" for q, _, d in judged)]
    (folder / "qrels" / "test.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_collection(tmp_path_factory.mktemp("judged"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(tmp_path_factory.mktemp("model") / "llama", "llama"))


def test_the_figures_are_those_of_a_pack(collection: Path, model: str, tmp_path: Path) -> None:
    """Table, impacts and full queries made for serving, searched by ``evaluate``."""
    job = BuildJob(model, {"default": TASK}, max_length=LENGTH, max_terms=TERMS)
    metadata = build_pack(job, tmp_path / "pack", SILENT, work=tmp_path / "work")
    judged = read_judged_collection(collection)
    tower = CausalEncoder.from_pack(metadata, device="cpu")
    made = tower.encode_document([document.content for document in judged.documents])
    assert made.dense is not None
    assert made.sparse is not None
    impacts, _ = quantise(made.sparse, metadata.sparse.scale)
    generation = Generation("g", "", "", "", "", 32, tower.vocabulary_size, metadata.sparse.scale)
    names = "full,lookup,lm-head,full+lm-head,lookup+lm-head"
    expected = evaluate(
        parse_systems(names),
        judged.judged,
        QueryEncoder.load(tmp_path / "pack"),
        ExactIndex(generation, EncodedDocuments(judged.documents, made.dense, impacts)),
        lambda: tower,
        SILENT,
        fusion=Fusion(),
        candidates=1000,
    )
    prompt = job.prompts["default"]
    settings = ReadingSettings(prompt, LENGTH, max_terms=TERMS, batch_tokens=500)
    towers = towers_of(tower, prompt)
    vectors = read_with(towers, tower.tokens, judged, settings, SILENT)
    found = TowerJudge(judged, tower.tokens).systems(vectors)
    assert list(found) == list(SYSTEMS)
    for row in expected:
        quality = found[row.system.name].quality
        assert quality.ndcg10 == pytest.approx(row.means["ndcg@10"], abs=1e-9), row.system
        assert quality.recall100 == pytest.approx(row.means["recall@100"], abs=1e-9)
    # Figures that guessing, or one and the same ranking, would give prove nothing.
    assert len({row.means["ndcg@10"] for row in expected}) == len(expected)
    np.testing.assert_allclose(vectors.dense, made.dense, atol=1e-5)
    assert np.diff(vectors.impacts.indptr).max() == TERMS


def test_what_the_regulariser_holds_down(collection: Path, model: str) -> None:
    """Terms and FLOPS are of all weights, before the heaviest are taken."""
    judged = read_judged_collection(collection)
    tower = CausalEncoder(model, max_length=LENGTH, max_terms=None, device="cpu")
    whole = tower.encode_document([document.content for document in judged.documents]).sparse
    assert whole is not None
    settings = ReadingSettings("", LENGTH, max_terms=TERMS)
    vectors = read_with(towers_of(tower, ""), tower.tokens, judged, settings, SILENT)
    assert vectors.terms == pytest.approx(len(whole.ids) / len(judged.documents))
    means = np.asarray(whole.to_csr().mean(axis=0)).ravel()
    assert vectors.flops == pytest.approx(float((means.astype(np.float64) ** 2).sum()), rel=1e-5)
    assert vectors.terms > 2 * TERMS


def test_bm25_is_the_formula(collection: Path, model: str) -> None:
    """Over the tower's own tokens, counted here anew."""
    judged = read_judged_collection(collection)
    tower = CausalEncoder(model, device="cpu")
    tokenizer = Tokenizer.from_str(tower.tokens.text)
    bags = [Counter(tokenizer.encode(d.content).ids) for d in judged.documents]
    mean = sum(bag.total() for bag in bags) / len(bags)

    def score(query: str, bag: Counter[int]) -> float:
        total = 0.0
        for token in tokenizer.encode(query).ids:
            known = sum(token in one for one in bags)
            idf = np.log1p((len(bags) - known + 0.5) / (known + 0.5))
            part = bag[token] * 2.2 / (bag[token] + 1.2 * (0.25 + 0.75 * bag.total() / mean))
            total += idf * np.floor(100 * part)
        return total

    gains = []
    for query in judged.judged.queries:
        scores = [score(query.text, bag) for bag in bags]
        wanted = next(iter(judged.judged.qrels[query.id]))
        own = scores[[d.id for d in judged.documents].index(wanted)]
        rank = 1 + sum(one > own for one in scores)
        gains.append(1 / np.log2(1 + rank) if rank <= 10 else 0.0)
    vectors = read_with(
        towers_of(tower, ""), tower.tokens, judged, ReadingSettings("", LENGTH), SILENT
    )
    found = TowerJudge(judged, tower.tokens).systems(vectors)["bm25"].quality.ndcg10
    assert found == pytest.approx(np.mean(gains), abs=1e-6)
    assert 0.5 < found < 1


def test_smaller_vectors(collection: Path, model: str) -> None:
    """Each size is what vectors cut by hand give; the largest is the system itself."""
    judged = read_judged_collection(collection)
    tower = CausalEncoder(model, device="cpu")
    settings = ReadingSettings(TASK, LENGTH, max_terms=TERMS)
    towers = towers_of(tower, TASK)
    vectors = read_with(towers, tower.tokens, judged, settings, SILENT)
    judge = TowerJudge(judged, tower.tokens)
    points = {(p.dims, p.max_terms): p for p in judge.sizes(vectors, (8, 32), (6, TERMS))}
    assert list(points) == [(8, 6), (8, TERMS), (32, 6), (32, TERMS)]
    whole = judge.systems(vectors)
    largest = points[32, TERMS]
    assert largest.lookup == whole["lookup"].quality
    assert largest.sparse == whole["lm-head"].quality
    assert largest.fused == whole["lookup+lm-head"].quality
    by_hand = replace(
        vectors,
        dense=vectors.dense[:, :8] / np.linalg.norm(vectors.dense[:, :8], axis=1, keepdims=True),
        light=vectors.light[:, :8] / np.linalg.norm(vectors.light[:, :8], axis=1, keepdims=True),
        full=vectors.full[:, :8],
        impacts=vectors.impacts.heaviest(6),
    )
    cut = judge.systems(by_hand)
    assert points[8, 6].fused == cut["lookup+lm-head"].quality != largest.fused


def test_reading_leaves_the_tower_as_it_was(collection: Path, model: str) -> None:
    """In training, with dropout: not dropped out while it is read."""
    judged = read_judged_collection(collection)
    tower = CausalEncoder(model, device="cpu")
    towers = towers_of(tower, TASK)
    settings = ReadingSettings(TASK, LENGTH)
    expected = read_with(towers, tower.tokens, judged, settings, SILENT)
    for module in towers.backbone.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    towers.backbone.train()
    found = read_with(towers, tower.tokens, judged, settings, SILENT)
    assert towers.backbone.training
    np.testing.assert_array_equal(found.light, expected.light)
    assert towers.light([[300, 301]]).requires_grad


@pytest.mark.parametrize("name", ["full", "document-bag", "embedding-layer", "one-layer"])
def test_an_adapter_in_half_precision(name: str, collection: Path, model: str) -> None:
    """Frozen weights in bfloat16, the adapter in float32: the vectors are near the exact ones."""
    judged = read_judged_collection(collection)
    settings = ReadingSettings(TASK, LENGTH)
    made = []
    for precision in ("float32", "bfloat16"):
        tower = CausalEncoder(model, precision=precision, device="cpu")
        add_adapter(tower.model.backbone, AdapterSettings(rank=2))
        VARIANTS[name].prepare(tower.model.backbone)
        towers = VARIANTS[name].towers(towers_of(tower, TASK))
        made.append(read_with(towers, tower.tokens, judged, settings, SILENT))
    exact, half = made
    for part in ("dense", "light", "full"):
        cosines = (getattr(exact, part) * getattr(half, part)).sum(axis=1)
        assert cosines.min() > 0.99, part
        assert not np.array_equal(getattr(exact, part), getattr(half, part))
    assert half.flops == pytest.approx(exact.flops, rel=0.05)


def test_only_queries_that_can_be_answered(collection: Path, tmp_path: Path) -> None:
    judged = read_judged_collection(collection).judged
    assert len(judged.queries) == 40
    assert "lost" not in {query.id for query in judged.queries}
    other = write_collection(tmp_path / "other", documents=3)
    corpus = other / "corpus.jsonl"
    corpus.write_text('{"_id": "x", "text": "of no query"}\n', encoding="utf-8")
    with pytest.raises(InputError, match="no document that answers one of the 4 queries"):
        read_judged_collection(other)
