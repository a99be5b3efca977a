"""Reading and validating: what is no document is rejected with its line and reason."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest

from steelyard.errors import InputError
from steelyard.indexer.reading.documents import documents_of
from steelyard.indexer.reading.metadata_fields import parse_fields
from steelyard.indexer.reading.readers import open_corpus
from steelyard.indexer.reading.validation import MAX_DOCUMENT_BYTES, ReadDocument, Rejection
from tests.conftest import SCIFACT, write_jsonl

GOOD = b'{"_id": "a", "title": "T", "text": "some text"}'
BAD = {
    b'{"_id": "x", "text": "t"': "broken JSON",
    b"[1, 2]": "not a JSON object but list",
    b"null": "not a JSON object but NoneType",
    b'"text"': "not a JSON object but str",
    b'{"text": "no id"}': "missing id",
    b'{"_id": "", "text": "t"}': "missing id",
    b'{"_id": null, "text": "t"}': "missing id",
    b'{"_id": 1.5, "text": "t"}': "id is not a string but float",
    b'{"_id": true, "text": "t"}': "id is not a string but bool",
    b'{"_id": "x", "text": ""}': "empty text",
    b'{"_id": "x", "text": " \\n", "title": "\\t"}': "empty text",
    b'{"_id": "x"}': "empty text",
    b'{"_id": "x", "text": 7}': "text is not a string but int",
    b'{"_id": "x", "text": "t", "title": ["T"]}': "title is not a string but list",
    b'{"_id": "x", "text": "caf\xe9"}': "not UTF-8 at byte",
    b'{"_id": "x", "text": "\\ud800 alone"}': "lone surrogate",
    b'{"_id": "x", "text": "a\\u0000b"}': "NUL",
    b'{"_id": "a", "text": "again"}': "duplicate id, first on line 1",
    b'{"_id": "x", "text": "t", "parent_id": "' + b"p" * 513 + b'"}': "parent_id of 513 bytes",
    b'{"_id": "' + b"i" * 513 + b'", "text": "t"}': "id of 513 bytes, at most 512",
    b'{"_id": "x", "text": "' + b"t" * (MAX_DOCUMENT_BYTES + 1) + b'"}': "too large",
    b"[" * 100_000: "broken JSON",
}


def read(path: Path, fields: str = "") -> list[ReadDocument | Rejection]:
    return list(documents_of(open_corpus(path), parse_fields(fields)))


@pytest.mark.parametrize("compressed", [False, True])
def test_bad_lines_are_rejected_and_good_ones_are_not_lost(
    tmp_path: Path, compressed: bool
) -> None:
    last = b'{"id": 42, "text": "a number is a fine id"}'
    data = b"\n".join([GOOD, b"", *BAD, last])
    path = tmp_path / ("corpus.jsonl.gz" if compressed else "corpus.jsonl")
    path.write_bytes(gzip.compress(data) if compressed else data)
    results = read(path)
    good = [r.document.id for r in results if isinstance(r, ReadDocument)]
    rejected = [r for r in results if isinstance(r, Rejection)]
    assert good == ["a", "42"]
    assert [r.line for r in rejected] == list(range(3, 3 + len(BAD)))
    for found, reason in zip(rejected, BAD.values(), strict=True):
        assert reason in found.reason
        assert len(found.reason) < 250


def test_windows_line_ends_a_byte_order_mark_and_an_open_last_line(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD + b"\r\n" + GOOD.replace(b'"a"', b'"b"'))
    assert [type(r) for r in read(path)] == [ReadDocument, ReadDocument]


def test_content_joins_title_and_text(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "c.jsonl", [{"_id": "1", "title": "T", "text": "x"}, {"_id": "2", "text": "y"}]
    )
    documents = [r.document for r in read(path) if isinstance(r, ReadDocument)]
    assert [d.content for d in documents] == ["T x", "y"]
    assert [d.parent_id for d in documents] == ["1", "2"]


def test_declared_metadata_is_typed(tmp_path: Path) -> None:
    values = [
        {"_id": "1", "text": "t", "metadata": {"price": 3, "brand": "x", "other": []}},
        {"_id": "2", "text": "t", "price": 2.5},
        {"_id": "3", "text": "t", "metadata": {"price": "cheap"}},
        {"_id": "4", "text": "t", "metadata": {"brand": 7}},
        {"_id": "5", "text": "t", "metadata": "none"},
        {"_id": "6", "text": "t", "price": 10**400},
        {"_id": "7", "text": "t", "price": math.inf},
        {"_id": "8", "text": "t", "brand": "b" * 40_000},
        {"_id": "9", "text": "t", "brand": "\ud800"},
    ]
    results = read(write_jsonl(tmp_path / "c.jsonl", values), "price:float, brand:keyword")
    documents = [r.document for r in results if isinstance(r, ReadDocument)]
    assert [dict(d.metadata) for d in documents] == [{"price": 3.0, "brand": "x"}, {"price": 2.5}]
    reasons = [r.reason for r in results if isinstance(r, Rejection)]
    assert reasons == [
        "metadata field price: expected float, found str",
        "metadata field brand: expected keyword, found int",
        "metadata is not an object but str",
        "metadata field price: number too large for a float",
        "metadata field price: not a finite number",
        "metadata field brand: keyword of more than 32,766 bytes",
        "metadata field brand holds a lone surrogate, so it is not UTF-8",
    ]


@pytest.mark.parametrize("text", ["price", "price:money", "a:int,a:int", "1x:int", ":int"])
def test_a_bad_declaration_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="cannot read the metadata field"):
        parse_fields(text)


def test_what_is_no_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no corpus at"):
        open_corpus(tmp_path / "nothing.jsonl")
    with pytest.raises(InputError, match="holds no corpus"):
        open_corpus(tmp_path)
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(GOOD * 1000)[:-20])
    with pytest.raises(InputError, match="cannot be read to its end"):
        read(cut)
    plain = tmp_path / "plain.jsonl.gz"
    plain.write_bytes(GOOD)
    with pytest.raises(InputError, match="cannot be read to its end"):
        read(plain)


def test_the_example_collection_is_whole() -> None:
    results = read(SCIFACT)
    assert len(results) == 5183
    assert all(isinstance(result, ReadDocument) for result in results)
    queries = (SCIFACT / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    assert len({json.loads(line)["_id"] for line in queries}) == 1109
