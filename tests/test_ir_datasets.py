"""``ir_datasets:ID`` as judged queries and as a corpus, from data sets registered here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from steelyard.errors import InputError, MissingExtraError
from steelyard.eval.collection import judged_queries
from steelyard.indexer.reading.documents import documents_of
from steelyard.indexer.reading.readers import open_corpus
from steelyard.indexer.reading.validation import ReadDocument
from tests.conftest import write_jsonl

NAME = "steelyard-tests"


class Titled(NamedTuple):
    """As BEIR's documents are."""

    doc_id: str
    text: str
    title: str
    year: int


class Page(NamedTuple):
    """As TREC's documents are: no field ``text``, and a raw page in bytes."""

    doc_id: str
    title: str
    body: str
    raw: bytes = b"<p>"

    def default_text(self) -> str:
        return f"{self.title} {self.body}"


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Documents, below them judged queries, and pages without a field ``text``."""
    import ir_datasets
    from ir_datasets.datasets.base import Dataset
    from ir_datasets.formats import JsonlDocs, TrecQrels, TsvQueries
    from ir_datasets.util import LocalDownload

    folder = tmp_path_factory.mktemp("ir-datasets")
    files = {
        "queries.tsv": "q1\theavy documents\nq2\tunjudged\nq3\tlight queries\n",
        "qrels.txt": "q1 0 d1 2\nq1 0 d2 0\nq3 0 d2 1\nq9 0 d1 1\n",
        "bad.txt": "q1 0 d1\n",
    }
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    lines = [
        {"doc_id": "d1", "title": "Heavy", "text": "a document é", "year": 1999},
        {"doc_id": "d2", "title": "", "text": "another", "year": 2000},
    ]
    documents = write_jsonl(folder / "docs.jsonl", lines)

    def local(name: str | Path) -> Any:
        return LocalDownload(folder / name)

    docs = JsonlDocs(local(documents), doc_cls=Titled)
    queries = TsvQueries(local("queries.tsv"))
    pages = write_jsonl(folder / "pages.jsonl", [{"doc_id": "t1", "title": "A", "body": "b"}])
    mapping = {name: name for name in ("doc_id", "title", "body")}
    trec = JsonlDocs(local(pages), doc_cls=Page, mapping=mapping)
    for name, parts in {
        NAME: [docs],
        f"{NAME}/test": [docs, queries, TrecQrels(local("qrels.txt"), {})],
        f"{NAME}/bad": [docs, queries, TrecQrels(local("bad.txt"), {})],
        f"{NAME}/gone": [docs, queries, TrecQrels(local("nobody.txt"), {})],
        f"{NAME}/trec": [trec],
    }.items():
        ir_datasets.registry.register(name, Dataset(*parts))
    return NAME


def test_judged_queries(registered: str) -> None:
    judged = judged_queries(f"ir_datasets:{registered}/test")
    assert judged.name == f"{registered}/test"
    assert [(query.id, query.text) for query in judged.queries] == [
        ("q1", "heavy documents"), ("q3", "light queries")
    ]  # fmt: skip
    assert judged.qrels["q1"] == {"d1": 2, "d2": 0}
    assert judged.missing == 1


def test_what_is_no_judged_data_set(registered: str) -> None:
    for name, message, hint in (
        ("nobody", "knows no 'nobody'", "ir-datasets.com"),
        (registered, "has no qrels", f"{registered}/test"),
        (f"{registered}/bad", "cannot be read", ""),
        (f"{registered}/gone", "cannot be read: .*nobody.txt", ""),
    ):
        with pytest.raises(InputError, match=message) as caught:
            judged_queries(f"ir_datasets:{name}")
        assert hint in caught.value.hint


def test_a_corpus(registered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEELYARD_CACHE", str(tmp_path))
    corpus = open_corpus(f"ir_datasets:{registered}/test")
    read = list(documents_of(corpus))
    found = [one.document for one in read if isinstance(one, ReadDocument)]
    assert [(d.id, d.title, d.text) for d in found] == [
        ("d1", "Heavy", "a document é"), ("d2", "", "another")
    ]  # fmt: skip
    assert corpus.name == "test"
    again = open_corpus(f"ir_datasets:{registered}")
    assert again.survey().sha256 == corpus.survey().sha256
    assert len(list((tmp_path / "ir_datasets").iterdir())) == 1
    (record,) = open_corpus(f"ir_datasets:{registered}/trec").records()
    assert record.value == {"_id": "t1", "body": "b", "text": "A b"}
    with pytest.raises(InputError, match="knows no"):
        open_corpus("ir_datasets:nobody")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(MissingExtraError, match=r"steelyard\[ir-datasets\]"):
        judged_queries("ir_datasets:beir/scifact/test")
