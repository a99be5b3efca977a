"""The study of look-up distillation: variants by name, what is remembered, and the table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from steelyard.encoders.documents.sentence_transformers import SentenceTransformersEncoder
from steelyard.errors import InputError
from steelyard.eval.study.remembering import RememberingTeacher
from steelyard.eval.study.study import Quality, StudyRun
from steelyard.eval.study.summary import estimates, summarise
from steelyard.eval.study.variants import parse_variants
from tests.conftest import MODEL, Small
from tests.test_cli import ok


def test_variants_by_name() -> None:
    default, both = parse_variants("default, words+average-2+48k+lean-0.1")
    assert default.settings == type(default.settings)()
    chosen = both.settings
    assert (chosen.start, chosen.pools, chosen.pooling) == ("words", 2, "average")
    assert (chosen.pseudo_queries, chosen.lean) == (48_000, 0.1)
    (margin,) = parse_variants("margin")
    assert margin.settings.divergence == 0 < margin.settings.margin


@pytest.mark.parametrize("wrong", ["", "default,default", "average", "k", "1.2.3k", "words+other"])
def test_unknown_variants_are_refused(wrong: str) -> None:
    with pytest.raises(InputError):
        parse_variants(wrong)


def run(variant: str, seed: int, dense: float, kept: float) -> StudyRun:
    held_out = {"queries": 600, "kept": kept, "cosine": -dense}
    return StudyRun(variant, seed, Quality(dense, dense + 0.1), 10.0, 20.0, 900, held_out)


def test_gains_are_paired_by_seed() -> None:
    """Both variants are better with seed 1, by different amounts: only the gain is tested."""
    runs = [
        run("default", 0, 0.60, 0.8),
        run("default", 1, 0.64, 0.9),
        run("words", 0, 0.61, 0.7),
        run("words", 1, 0.67, 0.95),
    ]
    first, second = summarise(runs, Quality(0.8, 1.0))
    assert first["dense"] == 0.62
    assert first["kept_dense"] == pytest.approx(0.775)
    assert first["dense_gain"] == 0
    assert second["dense_gain"] == 0.02
    assert second["dense_gain_error"] == 0.01
    assert second["dense_deviation"] == pytest.approx(0.0424, abs=1e-4)


def test_estimates_go_with_quality_or_not() -> None:
    runs = [run("v", i, d, k) for i, (d, k) in enumerate([(1, 2), (2, 1), (3, 4), (4, 3)])]
    cosine, kept = estimates(runs)
    assert (cosine["estimate"], cosine["dense"]) == ("cosine", -1)
    assert (kept["estimate"], kept["dense"]) == ("kept", 0.6)
    assert not estimates(runs[:3])


@pytest.mark.model
def test_a_teacher_remembers(model: SentenceTransformersEncoder, tmp_path: Path) -> None:
    first = RememberingTeacher(model, tmp_path)
    texts = ["one text", "another", "one text"]
    vectors = first.encode_query(texts)
    np.testing.assert_array_equal(vectors[0], vectors[2])
    entries = first.encode_tokens(np.arange(5, 9))
    first.save()
    again = RememberingTeacher(model, tmp_path)
    np.testing.assert_array_equal(again.encode_query(texts), vectors)
    np.testing.assert_array_equal(again.encode_tokens(np.arange(5, 9)), entries)
    assert again.spent == 0 < again.asked
    again.encode_query(["a third"])
    assert again.spent > 0
    # The memory of one model is not another's.
    other = SentenceTransformersEncoder(MODEL, prompts={"query": "query: "})
    assert not np.array_equal(RememberingTeacher(other, tmp_path).encode_query(texts), vectors)


@pytest.mark.model
def test_a_study_of_a_small_collection(small: Small, tmp_path: Path) -> None:
    report = tmp_path / "study.json"
    output = ok(
        "bench",
        "distillation",
        small.corpus,
        "--model",
        MODEL,
        "--split",
        "test",
        "--variants",
        "0.6k,0.6k+average-2,0.6k+words+epochs-2,0.6k+margin",
        "--seeds",
        "0",
        "--memory",
        tmp_path / "memory",
        "--shards",
        small.made.shards,
        "--json",
        report,
    )
    assert "0.6k+average-2" in output
    found = json.loads(report.read_text(encoding="utf-8"))
    rows = {row["variant"]: row for row in found["summary"]}
    assert list(rows) == ["0.6k", "0.6k+average-2", "0.6k+words+epochs-2", "0.6k+margin"]
    assert found["full"]["dense"] > 0.5
    # 120 documents are easy to tell apart: every variant learns.
    assert all(row["dense"] > 0.6 * found["full"]["dense"] for row in rows.values())
    assert 1.5 < rows["0.6k+average-2"]["pseudo_queries"] / rows["0.6k"]["pseudo_queries"] < 2.2
    # The margin variant is charged for the pool that it shares, although nothing was encoded.
    assert rows["0.6k+margin"]["encode_seconds"] == rows["0.6k"]["encode_seconds"] > 0
    assert {row["estimate"] for row in found["estimates"]} > {"kept", "cosine"}
