"""Look-up distillation: what is drawn, that it learns, and that a seed fixes it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from steelyard.encoders.distillation.estimate import estimate, top_documents
from steelyard.encoders.distillation.pools import draw_pools
from steelyard.encoders.distillation.pseudo_queries import (
    MAX_SENTENCE_WORDS,
    PseudoQueries,
    draw_pseudo_queries,
)
from steelyard.encoders.distillation.recipe import distill
from steelyard.encoders.distillation.settings import DistillationSettings
from steelyard.encoders.distillation.starts import start_from_words
from steelyard.encoders.distillation.training import Lessons, train_table
from steelyard.encoders.documents.sentence_transformers import SentenceTransformersEncoder
from steelyard.encoders.pack.query_tokenizer import query_tokenizer
from steelyard.encoders.query.tables import LookupTable
from steelyard.encoders.query.tokenizer import PackTokenizer, TokenRows, load_tokenizer
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


@pytest.mark.parametrize(("divergence", "margin"), [(1.0, 0.0), (0.0, 0.1), (1.0, 0.05)])
def test_every_loss_recovers_a_known_table(divergence: float, margin: float) -> None:
    """Each loss on scores brings the look-up's ranking to the target's."""
    rng = _rng()
    truth = l2_normalise(rng.normal(size=(40, 16)).astype(np.float32))
    start = l2_normalise(rng.normal(size=(40, 16)).astype(np.float32))
    documents = l2_normalise(rng.normal(size=(150, 16)).astype(np.float32))
    ids = rng.integers(0, 40, size=1200).astype(np.int32)
    tokens = TokenRows(ids, np.arange(0, 1201, 3), np.zeros(400, dtype=bool))
    targets = l2_normalise(truth[ids].reshape(400, 3, 16).sum(axis=1))
    best = top_documents(targets, documents, 5)
    settings = DistillationSettings(
        epochs=30, batch=64, learning_rate=2e-2, divergence=divergence, margin=margin
    )
    lessons = Lessons(tokens, targets, best[:, 0], best, 0.1)
    trained = train_table(start, lessons, documents, settings, rng)
    found = top_documents(LookupTable(trained.rows).encode(tokens), documents, 1)[:, 0]
    before = top_documents(LookupTable(start).encode(tokens), documents, 1)[:, 0]
    assert np.mean(before == best[:, 0]) < 0.3
    assert np.mean(found == best[:, 0]) > 0.7


def test_margins_count() -> None:
    """The first loss with margin-MSE is the one without, and more."""
    assert _first_loss(margin=1.0) > _first_loss(margin=0.0) + 0.1
    assert _first_loss(divergence=0.0) < _first_loss(margin=0.0)


def _first_loss(divergence: float = 1.0, margin: float = 0.0) -> float:
    rng = _rng()
    rows = l2_normalise(rng.normal(size=(20, 8)).astype(np.float32))
    tokens = TokenRows(np.arange(20, dtype=np.int32), np.arange(21), np.zeros(20, dtype=bool))
    best = top_documents(rows, rows[::-1].copy(), 3)
    settings = replace(SETTINGS, epochs=1, divergence=divergence, margin=margin)
    lessons = Lessons(tokens, rows[::-1].copy(), best[:, 0], best, 0.1)
    return train_table(rows, lessons, rows[::-1].copy(), settings, rng).losses[0]


def test_pools_hold_out_the_same_documents(
    model: SentenceTransformersEncoder, tokens: PackTokenizer
) -> None:
    """Two pools are drawn apart, joined or not, and no held-out document is taught by either."""
    documents = real_documents(40)
    settings = replace(SETTINGS, pseudo_queries=90, pools=2)
    apart = draw_pools(documents, model, tokens, settings, SilentProgress())
    joined = draw_pools(
        documents, model, tokens, replace(settings, pooling="join"), SilentProgress()
    )
    one = draw_pools(documents, model, tokens, replace(settings, pools=1), SilentProgress())
    first, second = apart.taught
    np.testing.assert_array_equal(first.vectors, one.taught[0].vectors)
    assert not np.array_equal(first.sources[:50], second.sources[:50])
    held_out = set(apart.held_out.sources.tolist())
    assert held_out
    assert not held_out & {*first.sources.tolist(), *second.sources.tolist()}
    (both,) = joined.taught
    np.testing.assert_array_equal(both.sources, np.append(first.sources, second.sources))
    last = both.tokens.select(np.array([len(both.sources) - 1]))
    np.testing.assert_array_equal(last.ids, second.tokens.ids[second.tokens.indptr[-2] :])


def test_a_start_from_words_sums_to_the_words(
    model: SentenceTransformersEncoder, tokens: PackTokenizer
) -> None:
    """Pieces that mean nothing alone come nearer to the words that they make up."""
    documents = real_documents(40)
    rows = len(tokens.keep)
    entries = l2_normalise(_rng().normal(size=(rows, model.dims)).astype(np.float32))
    fitted = start_from_words(entries, documents, model, tokens, SilentProgress())
    word = ["endothelial"]
    assert any("endothelial" in document.content for document in documents)
    whole, pieces = model.encode_query(word), tokens.encode(word)
    assert len(pieces.ids) > 1
    before, after = (LookupTable(start).encode(pieces) @ whole.T for start in (entries, fitted))
    assert after > before + 0.1
    changed = np.flatnonzero((entries != fitted).any(axis=1))
    assert 50 < len(changed) < rows / 4


@pytest.fixture(scope="module")
def tokens(model: SentenceTransformersEncoder) -> PackTokenizer:
    made = query_tokenizer(model.tokenizer_json(), lowercase=True)
    loaded = load_tokenizer(made.text, "the model", made.rows)
    return PackTokenizer(loaded.tokenizer, made.rows, ignored_ids=made.special_ids)


@pytest.mark.parametrize(
    "wrong", [{"start": "zero"}, {"pooling": "sum"}, {"pools": 0}, {"margin": -1.0}]
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=str(next(iter(wrong.values())))):
        DistillationSettings(**wrong)


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
    assert 0.5 < held_out["fresh_rr_at_10"] <= 1
    losses = provenance["recipe"]["epoch_losses"]
    assert losses == sorted(losses, reverse=True)


def test_the_estimate_by_hand() -> None:
    documents = np.eye(20, dtype=np.float32)
    teacher = np.eye(20, dtype=np.float32)[:2]
    lookup = l2_normalise(documents[[0, 5]] + 0.1 * documents[[1, 1]])
    found = estimate(lookup, teacher, documents, np.array([0, 1]), 0.4)
    assert found.teacher_rr_at_10 == 1
    assert found.lookup_rr_at_10 == pytest.approx((1 + 1 / 2) / 2)
    assert found.kept == pytest.approx(0.75)
    assert found.to_dict()["fresh_rr_at_10"] == 0.4
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
