"""``steelyard upsert`` and ``delete`` as a user calls them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steelyard.encoders.documents.from_pack import open_document_encoder
from steelyard.indexer.changes.encoder import PackChangeEncoder
from steelyard.indexer.changes.log import Upsert, encode_change
from steelyard.indexer.records_place import records_of
from steelyard.plugin.urls import open_engine
from steelyard.types import Document
from tests.conftest import Small, scifact_lines, write_jsonl
from tests.live_changes import expected, fill, generation, live, stored, words
from tests.test_cli import BIN, fails, ok, run

START = [
    Document("a", words(7), "A", "a", {"price": 1.0, "brand": "x"}),
    Document("b", words(2), "B", "b", {"price": 2.0}),
    Document("c", words(4), "C", "c", {"price": 3.0, "brand": "x"}),
]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A published generation of three documents, two of them split."""
    made = f"milvus-lite://{tmp_path / 'file.db'}?name=demo"
    engine = open_engine(made)
    fill(engine, generation(), START)
    engine.publish(generation())
    engine.close()
    return made


def left(url: str) -> dict[str, str]:
    engine = open_engine(url)
    try:
        return stored(engine, generation())
    finally:
        engine.close()


def result_of(tmp_path: Path, *arguments: object) -> dict[str, Any]:
    report = tmp_path / "report.json"
    ok(*arguments, "--json", report)
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found


def test_documents_are_deleted_in_four_ways(url: str, tmp_path: Path) -> None:
    before = left(url)
    looked = result_of(tmp_path, "delete", "a", "nobody", "--to", url, "--dry-run")
    assert (looked["found"], looked["rows"], looked["unknown"]) == (1, 3, ["nobody"])
    assert looked["deleted"] == 0
    assert left(url) == before
    done = result_of(tmp_path, "delete", "--to", url, "--parent", "c")
    assert (done["deleted"], done["rows"]) == (1, 2)
    condition = '{"range": {"price": {"lt": 1.5}}}'
    done = result_of(tmp_path, "delete", "--to", url, "--filter", condition)
    assert (done["ids"], done["rows"]) == (["a"], 3)
    (tmp_path / "ids").write_text("\nnobody\nb\r\n", encoding="utf-8")
    done = result_of(tmp_path, "delete", "--to", url, "--ids-from", tmp_path / "ids")
    assert (done["ids"], done["unknown"]) == (["b"], ["nobody"])
    assert left(url) == {}


def test_ids_come_from_standard_input(url: str) -> None:
    done = subprocess.run(
        [BIN, "delete", "--to", url, "--ids-from", "-"],
        input="a\nb\n",
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert left(url) == expected(START[2:], generation())


def test_what_cannot_be_deleted_is_told(url: str, tmp_path: Path, tiny_pack: Path) -> None:
    before = left(url)
    fails(2, "said in 0 ways", "delete", "--to", url)
    fails(2, "said in 2 ways: IDS, --parent", "delete", "a", "--to", url, "--parent", "b")
    fails(2, "the filter is not JSON", "delete", "--to", url, "--filter", "{")
    fails(2, "cannot read the filter", "delete", "--to", url, "--filter", '{"near": 1}')
    wrong = '{"eq": {"colour": "red"}}'
    fails(2, "no metadata field 'colour'", "delete", "--to", url, "--filter", wrong)
    fails(2, "has 600 bytes", "delete", "x" * 600, "--to", url)
    fails(2, "cannot read the ids in", "delete", "--to", url, "--ids-from", tmp_path / "none")
    fails(4, "stands for no generation", "delete", "a", "--to", url.replace("demo", "other"))
    missing = f"milvus-lite://{tmp_path / 'none.db'}?name=demo"
    fails(4, "no Milvus Lite file", "delete", "a", "--to", missing)
    fails(3, "the documents of", "upsert", tmp_path / "x", "--pack", tiny_pack, "--to", url)
    assert left(url) == before


def test_a_delete_says_that_it_needs_the_pack_for_what_was_left(url: str) -> None:
    engine = open_engine(url)
    store = records_of(engine, url)
    live(engine, store).catch_up()
    moment = "2030-01-01T00:00:00+00:00"
    store.append([encode_change(Upsert(Document("d", "text")), moment)])
    engine.close()
    said = fails(4, "there is no pack to encode them with", "delete", "a", "--to", url)
    assert "--pack" in said
    assert "a#0" in left(url)


@pytest.fixture(scope="module")
def indexed(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """The small collection with its years, in a file of its own each time."""
    folder = tmp_path_factory.mktemp("changes")
    documents = [{**line, "year": 2000 + n % 20} for n, line in enumerate(scifact_lines(30))]
    corpus = write_jsonl(folder / "corpus.jsonl", documents)

    def make() -> str:
        url = f"milvus-lite://{folder / 'file.db'}?name=demo"
        ok("index", corpus, "--pack", small.pack, "--to", url, "--metadata", "year:int")
        return url

    return make


def test_documents_are_written_and_found_at_once(
    small: Small, indexed: Callable[[], str], tmp_path: Path
) -> None:
    url = indexed()
    known = scifact_lines(1)[0]["_id"]
    title = "Weightless queries with a steelyard"
    changed = [
        {"_id": "new", "title": title, "text": "A balance has a heavy and a light arm."},
        {"_id": known, "title": "Replaced", "text": "Nothing is left of it.", "year": 1999},
        {"_id": "bad", "text": "x", "year": "soon"},
        {"text": "no id"},
        {"_id": "new", "title": title, "text": "The later one counts.", "year": 2026},
    ]
    lines = write_jsonl(tmp_path / "changes.jsonl", changed)
    rejected, report = tmp_path / "bad.jsonl", tmp_path / "report.json"
    done = run(
        "upsert", lines, "--pack", small.pack, "--to", url,
        "--rejected", rejected, "--json", report,
    )  # fmt: skip
    assert done.returncode == 6, done.stderr
    assert str(rejected) in done.stdout.replace("\n", "")
    result = json.loads(report.read_text(encoding="utf-8"))
    assert (result["read"], result["documents"], result["rejected"]) == (5, 3, 2)
    told = [json.loads(line) for line in rejected.read_text(encoding="utf-8").splitlines()]
    assert [(one["line"], one["id"]) for one in told] == [(3, "bad"), (4, None)]
    found = tmp_path / "found.json"
    ok("search", title, "--pack", small.pack, "--to", url, "--json", found)
    hit = json.loads(found.read_text(encoding="utf-8"))["hits"][0]
    assert hit["id"] == "new"
    assert hit["document"]["text"] == "The later one counts."
    assert hit["document"]["metadata"] == {"year": 2026}
    gone = result_of(tmp_path, "delete", "--to", url, "--filter", '{"eq": {"year": 1999}}')
    assert gone["ids"] == [known]
    ok("delete", "new", "--to", url)
    ok("search", title, "--pack", small.pack, "--to", url, "--json", found)
    hits = json.loads(found.read_text(encoding="utf-8"))["hits"]
    assert not {"new", known} & {hit["id"] for hit in hits}
    engine = open_engine(url)
    current = engine.resolve()
    assert current is not None
    assert engine.open(current).count() == 29
    engine.close()


def test_what_cannot_be_written_is_told(
    small: Small, indexed: Callable[[], str], tmp_path: Path
) -> None:
    url = indexed()
    here = ["--pack", small.pack, "--to", url, "--rejected", tmp_path / "rejected.jsonl"]
    fails(2, "no corpus at", "upsert", tmp_path / "none.jsonl", *here)
    lines = write_jsonl(tmp_path / "x.jsonl", [{"_id": "x"}, {"_id": "y"}])
    message = "declares no metadata field colour:keyword"
    fails(2, message, "upsert", lines, *here, "--metadata", "colour:keyword")
    fails(2, "--max-rejected allows 0", "upsert", lines, *here, "--max-rejected", 0)
    assert run("upsert", lines, *here).returncode == 6
    empty = f"{url.rsplit('=', 1)[0]}=other"
    fails(4, "stands for no generation", "upsert", lines, "--pack", small.pack, "--to", empty)


def test_passages_are_split_by_the_packs_tokens(small: Small) -> None:
    """As the indexing job does, and encoded as it does."""
    pack = small.encoder
    spaces = pack.metadata.spaces
    made = replace(
        generation(),
        dense_space=spaces.dense,
        sparse_space=spaces.sparse,
        dims=pack.dims,
        vocabulary_size=pack.vocabulary_size,
        passages="24/4",
    )
    encoder = PackChangeEncoder(pack, lambda: open_document_encoder(pack))
    line = scifact_lines(1)[0]
    document = Document(line["_id"], line["text"], line["title"], line["_id"], {"price": 1.0})
    short = Document("short", "one sentence.")
    long_id = Document("x" * 512, line["text"])
    found = encoder.encode([document, short, long_id], made)
    ids = [piece.id for piece in found.content.documents]
    assert ids == [f"{line['_id']}#{n}" for n in range(len(ids) - 1)] + ["short"]
    assert len(ids) > 5
    assert {piece.parent_id for piece in found.content.documents[:-1]} == {line["_id"]}
    assert "passage id of" in found.refused["x" * 512]
