"""Look-up distillation: what is drawn, that it learns, and that a seed fixes it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from steelyard.encoders.distillation.estimate import estimate, top_documents
from steelyard.encoders.distillation.pseudo_queries import (
    MAX_SENTENCE_WORDS,
    PseudoQueries,
    draw_pseudo_queries,
)
from steelyard.encoders.distillation.recipe import distill
from steelyard.encoders.distillation.settings import DistillationSettings
from steelyard.encoders.distillation.training import Lessons, train_table
from steelyard.encoders.documents.sentence_transformers import SentenceTransformersEncoder
from steelyard.encoders.query.tokenizer import PackTokenizer, TokenRows
from steelyard.errors import InputError
from steelyard.indexer.encoding.shards import read_shard
from steelyard.progress import SilentProgress
from steelyard.types import Document, l2_normalise
from tests.conftest import SMALL_SETTINGS, Small, scifact_lines

SETTINGS = DistillationSettings(pseudo_queries=450, epochs=2)


def real_documents(count: int) -> list[Document]:
    return [Document(d["_id"], d["text"], d["title"]) for d in scifact_lines(count)]


def drawn(seed: int, count: int = 80) -> PseudoQueries:
    return draw_pseudo_queries(real_documents(count), SETTINGS, np.random.default_rng(seed))


def test_pseudo_queries_are_the_documents_own_words() -> None:
    documents = real_documents(80)
    queries = drawn(0)
    assert 350 < len(queries) <= 450
    assert len(set(queries.texts)) == len(queries)
    for text, source in zip(queries.texts, queries.sources, strict=True):
        content = documents[source].content
        assert 2 <= len(text.split()) <= MAX_SENTENCE_WORDS
        assert all(word in content for word in text.split())


def test_keywords_and_shortened_sentences_hold_no_stop_word() -> None:
    texts = drawn(0).texts
    without = [t for t in texts if not SETTINGS.stop_words & {w.lower() for w in t.split()}]
    assert len(without) >= 270


def test_rare_words_are_drawn_more_often() -> None:
    shared = "one two three four five six seven eight nine"
    documents = [Document(str(i), f"{shared} item{i}") for i in range(60)]
    queries = draw_pseudo_queries(
        documents, replace(SETTINGS, pseudo_queries=120), np.random.default_rng(1)
    )
    bags = [t for t in queries.texts if 2 <= len(t.split()) <= 4]
    # Drawn evenly, the rare word would be in about three bags of ten.
    assert len(bags) > 20
    assert sum("item" in t for t in bags) > 0.9 * len(bags)


def test_a_seed_fixes_the_draw() -> None:
    assert drawn(4).texts == drawn(4).texts
    assert drawn(4).texts != drawn(5).texts


def test_a_corpus_without_sentences_is_refused() -> None:
    with pytest.raises(InputError, match="no sentence of 3 words in 2 documents"):
        draw_pseudo_queries([Document("1", "one"), Document("2", "two")], SETTINGS, _rng())


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_training_recovers_a_known_table() -> None:
    """Targets that a table can reach are reached, and untouched rows stay as they were."""
    rng = _rng()
    truth = l2_normalise(rng.normal(size=(60, 16)).astype(np.float32))
    start = l2_normalise(rng.normal(size=(80, 16)).astype(np.float32))
    documents = l2_normalise(rng.normal(size=(200, 16)).astype(np.float32))
    lengths = rng.integers(1, 6, size=900)
    ids = rng.integers(0, 60, size=int(lengths.sum())).astype(np.int32)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    tokens = TokenRows(ids, indptr, np.zeros(900, dtype=bool))
    sums = np.stack([truth[ids[a:b]].sum(axis=0) for a, b in itertools.pairwise(indptr)])
    targets = l2_normalise(sums)
    hard = top_documents(targets, documents, 5)
    settings = DistillationSettings(epochs=30, batch=64, learning_rate=2e-2)
    lessons = Lessons(tokens, targets, hard[:, 0], hard, 0.1)
    trained = train_table(start, lessons, documents, settings, rng)
    assert trained.losses[-1] < 0.05 * trained.losses[0]
    assert trained.touched == 60
    np.testing.assert_array_equal(trained.rows[60:], start[60:])


def test_a_seed_fixes_the_table(small: Small, model: SentenceTransformersEncoder) -> None:
    """Distilled again with the same seed, every row and the estimate are the pack's own."""
    made = small.made
    content = read_shard(made.shards / made.manifest.shards[0].name)
    encoder = small.encoder
    tokens = PackTokenizer(
        encoder.tokenizer,
        encoder.vocabulary_size,
        ignored_ids=encoder.metadata.dense.ignored_ids,
    )
    again = distill(
        content.documents,
        content.dense,
        model,
        tokens,
        encoder.vocabulary_size,
        SMALL_SETTINGS,
        SilentProgress(),
    )
    np.testing.assert_array_equal(again.rows, encoder.tables["default"].rows)
    assert again.recipe == made.metadata.provenance["recipe"]
    assert again.held_out.to_dict() == made.metadata.provenance["held_out"]


def test_the_estimate_is_in_the_pack(small: Small) -> None:
    provenance = small.made.metadata.provenance
    held_out = provenance["held_out"]
    assert held_out["queries"] > 20
    assert 0.5 < held_out["kept"] < 1.5
    assert held_out["cosine"] > 0.5
    losses = provenance["recipe"]["epoch_losses"]
    assert losses == sorted(losses, reverse=True)


def test_the_estimate_by_hand() -> None:
    documents = np.eye(20, dtype=np.float32)
    teacher = np.eye(20, dtype=np.float32)[:2]
    lookup = l2_normalise(documents[[0, 5]] + 0.1 * documents[[1, 1]])
    found = estimate(lookup, teacher, documents, np.array([0, 1]))
    assert found.teacher_rr_at_10 == 1
    assert found.lookup_rr_at_10 == pytest.approx((1 + 1 / 2) / 2)
    assert found.kept == pytest.approx(0.75)
    assert top_documents(teacher, documents, 3)[:, 0].tolist() == [0, 1]


def test_a_corpus_too_small_to_learn_from(
    model: SentenceTransformersEncoder, small: Small
) -> None:
    tokens = PackTokenizer(small.encoder.tokenizer, small.encoder.vocabulary_size)
    documents = [Document("1", "one short text")]
    with pytest.raises(InputError, match="too few"):
        distill(
            documents,
            np.ones((1, 384), np.float32),
            model,
            tokens,
            small.encoder.vocabulary_size,
            replace(SETTINGS, pseudo_queries=9),
            SilentProgress(),
        )
