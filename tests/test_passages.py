"""Passages: exact pieces of the text, nothing lost, ids that never collide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from steelyard.errors import InputError
from steelyard.indexer.reading.documents import documents_of
from steelyard.indexer.reading.passages import (
    PassageLength,
    Splitter,
    cut,
    split_passages,
)
from steelyard.indexer.reading.readers import open_corpus
from steelyard.indexer.reading.validation import ReadDocument, Rejection
from steelyard.types import Document
from tests.conftest import write_jsonl

ALPHABET = "ab .!\n\t\u00a0é日。😀\u0301"


def words() -> Tokenizer:
    """A token a word or mark; unknown to nothing."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def byte_level() -> Tokenizer:
    """A token a byte: several share a character."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def decomposing() -> Tokenizer:
    """A token a letter or accent, of text that was decomposed, stripped and lower-cased."""
    tokenizer = Tokenizer(models.BPE({"<unk>": 0, "a": 1, "b": 2, "e": 3}, [], unk_token="<unk>"))  # noqa: S106
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


TOKENIZERS = {"words": words(), "bytes": byte_level(), "decomposing": decomposing()}


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(
    text=st.text(ALPHABET, max_size=120),
    title=st.text(ALPHABET, max_size=20),
    tokens=st.integers(8, 20),
    overlap=st.integers(0, 9),
)
@example(text="😀" * 20, title="", tokens=8, overlap=3)
@example(text="", title="a" * 9, tokens=8, overlap=0)
@example(text="aaaaaaaa ", title="", tokens=8, overlap=0)
@example(text="aaa。\xa0", title="a", tokens=8, overlap=3)
def test_pieces_are_exact_bounded_and_lose_nothing(
    kind: str, text: str, title: str, tokens: int, overlap: int
) -> None:
    overlap = min(overlap, tokens // 2 - 1)
    tokenizer = TOKENIZERS[kind]
    document = Document("d", text, title, "d", {"year": 1})
    passages = split_passages(document, tokenizer, tokens, overlap)
    assert passages == split_passages(document, tokenizer, tokens, overlap)
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    in_title = len(tokenizer.encode(title, add_special_tokens=False).ids)
    if in_title + len(offsets) <= tokens:
        assert passages == [document]
    if len(passages) == 1:
        assert passages == [document]
        return
    room = max(tokens - in_title, tokens // 2)
    assert [p.id for p in passages] == [f"d#{n}" for n in range(len(passages))]
    spans = cut(text, offsets, room, overlap)
    assert [p.text for p in passages] == [text[start:end] for start, end in spans]
    covered = begun = 0
    for passage, (start, end) in zip(passages, spans, strict=True):
        assert (passage.title, passage.parent_id, passage.metadata) == (title, "d", {"year": 1})
        assert passage.text == passage.text.strip() != ""
        assert not text[covered:start].strip()
        assert start >= begun
        assert end > covered
        begun, covered = start, end
        inside = [s for s, _ in offsets if start <= s < end]
        # A character of several tokens is never cut, so it may stand over.
        assert len(inside) <= room + 3
        # Never inside a character, nor of a token's characters.
        assert all(e <= start or s >= start for s, e in offsets)
        assert all(e <= end or s >= end for s, e in offsets)
    assert not text[covered:].strip()


def test_cuts_prefer_the_end_of_a_sentence_then_of_a_word() -> None:
    tokenizer = words()

    def pieces(text: str, room: int, overlap: int = 0) -> list[str]:
        spans = cut(text, tokenizer.encode(text).offsets, room, overlap)
        return [text[start:end] for start, end in spans]

    text = "one two three four five six seven. eight nine ten eleven twelve"
    assert pieces(text, 10) == ["one two three four five six seven.", text[35:]]
    assert pieces(text, 7) == ["one two three four five six", text[28:]]
    assert pieces("a b c d e f g h", 4, 1) == ["a b c d", "d e f g", "g h"]
    letters = [(i, i + 1) for i in range(10)]
    assert cut("x" * 10, letters, 4, 0) == [(0, 4), (4, 8), (8, 10)]
    # Not inside a word, though the overlap then is less.
    parts = [(i, i + 1) for i, letter in enumerate("aaaa bbbb cccc dddd") if letter != " "]
    assert cut("aaaa bbbb cccc dddd", parts, 12, 6) == [(0, 14), (10, 19)]


def test_a_passage_of_another_document_is_left_as_it_is() -> None:
    document = Document("d", "word " * 50, "", "book")
    assert Splitter(words(), PassageLength(8)).split([document]) == [[document]]


@pytest.mark.parametrize("text", ["", "x", "256/", "/3", "7", "256/128", "64/-1", "1e3/2", "8/4"])
def test_a_length_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="passages"):
        PassageLength.parse(text)
    assert str(PassageLength.parse(" 256/32 ")) == "256/32"
    assert PassageLength.parse("64") == PassageLength(64, 0)


def read(path: Path, split: Splitter | None) -> list[ReadDocument | Rejection]:
    return list(documents_of(open_corpus(path), {"n": "int"}, split))


def line(identifier: str, words: int = 3, **more: Any) -> dict[str, Any]:
    return {"_id": identifier, "text": " ".join(["word"] * words), **more}


def test_every_record_gives_documents_or_a_rejection(tmp_path: Path) -> None:
    corpus = write_jsonl(
        tmp_path / "c.jsonl",
        [
            line("a", 20, n=5),  # three passages
            line("a#0"),
            line("a#2"),
            line("a#3"),
            line("a#02"),
            line("b#1"),
            line("b", 20),
            line("c", 3),
            line("c#0"),
            line("a", 20),
            line("i" * 511, 20),
            line("i" * 510, 20),
            7,
            line("d", 90),  # twelve passages
            line("d#11"),
            line("d#12"),
            line("d#0#0"),
        ],
    )
    found = read(corpus, Splitter(words(), PassageLength(8)))
    rejected = {r.line: r.reason for r in found if isinstance(r, Rejection)}
    assert rejected == {
        2: "duplicate id, of a passage of line 1",
        3: "duplicate id, of a passage of line 1",
        7: "its passage b#1 has the id of line 6",
        10: "duplicate id, first on line 1",
        11: "passage id of 513 bytes, at most 512",
        13: "not a JSON object but int",
        15: "duplicate id, of a passage of line 14",
    }
    read_documents = [r for r in found if isinstance(r, ReadDocument)]
    first = [(r.document.id, r.passage, r.passages) for r in read_documents if r.line == 1]
    assert first == [("a#0", 0, 3), ("a#1", 1, 3), ("a#2", 2, 3)]
    assert all(r.document.metadata == {"n": 5} for r in read_documents if r.line == 1)
    records = [r for r in read_documents if r.passage == 0]
    assert len(records) + len(rejected) == 17
    assert sum(r.passages for r in records) == len(read_documents)
    identifiers = [r.document.id for r in read_documents]
    assert len(set(identifiers)) == len(identifiers)
    assert {r.document.parent_id for r in read_documents if r.line == 14} == {"d"}
    lines = [r.line for r in found]
    assert lines == sorted(lines)
    whole = read(corpus, None)
    assert {r.line for r in whole if isinstance(r, Rejection)} == {10, 13}


IDS = st.sampled_from(["a", "b", "a#0", "a#1", "a#2", "a#0#0", "b#0", "b#00"])


@given(st.lists(st.tuples(IDS, st.sampled_from([3, 20])), max_size=12))
def test_no_two_documents_have_one_id(
    tmp_path_factory: pytest.TempPathFactory, records: list[tuple[str, int]]
) -> None:
    path = tmp_path_factory.mktemp("ids") / "c.jsonl"
    write_jsonl(path, [line(i, count) for i, count in records])
    found = read(path, Splitter(words(), PassageLength(8)))
    taken: set[str] = set()
    results = iter(found)
    splitter = Splitter(words(), PassageLength(8))
    for number, (identifier, count) in enumerate(records, start=1):
        document = Document(identifier, line(identifier, count)["text"], "", identifier)
        ((*passages,),) = (splitter.split([document])[0],)
        new = {identifier, *(p.id for p in passages)}
        result = next(results)
        assert result.line == number
        assert isinstance(result, Rejection) == bool(new & taken)
        if isinstance(result, ReadDocument):
            taken |= new
            assert [result, *(next(results) for _ in passages[1:])] == [
                ReadDocument(number, p, "", n, len(passages)) for n, p in enumerate(passages)
            ]
    assert next(results, None) is None
