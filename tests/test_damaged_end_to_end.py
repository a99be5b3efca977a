"""A damaged corpus through the whole job: what is good is searchable, what is not is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.plugin.urls import open_engine
from tests.damaged_corpus import WORDS, DamagedCorpus, document, write_damaged
from tests.tiny_tower import write_tiny_tower, write_tiny_tower_pack

LINES = 2000
BIN = Path(sys.executable).parent / "steelyard"


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> DamagedCorpus:
    folder = tmp_path_factory.mktemp("damaged")
    return write_damaged(folder / "corpus.jsonl", LINES, large=2)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tower")
    words = [*WORDS, "number", *map(str, range(LINES + 1))]
    return write_tiny_tower_pack(folder / "pack", write_tiny_tower(folder, words), words)


def test_exactly_the_damaged_lines_are_rejected_and_all_others_searchable(
    damaged: DamagedCorpus, pack: Path, tmp_path: Path
) -> None:
    url = f"milvus-lite://{tmp_path / 'index.db'}?name=damaged"
    shards, report = tmp_path / "shards", tmp_path / "report.json"
    done = subprocess.run(
        [str(BIN), "index", str(damaged.path), "--pack", str(pack), "--to", url,
         "--shards", str(shards), "--json", str(report)],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(report.read_text(encoding="utf-8"))
    assert result["read"] == damaged.lines == LINES
    assert result["indexed"] == len(damaged.good)
    assert result["rejected"] == len(damaged.rejected) == LINES - len(damaged.good)

    text = (shards / "rejected.jsonl").read_text(encoding="utf-8")
    rejected = [json.loads(line) for line in text.splitlines()]
    assert [(one["line"], one["id"]) for one in rejected] == [
        (one.line, one.id) for one in damaged.rejected
    ]
    for found, expected in zip(rejected, damaged.rejected, strict=True):
        assert found["reason"].startswith(expected.reason), (found, expected)

    encoder = QueryEncoder.load(pack)
    engine = open_engine(url, must_exist=True, vocabulary=encoder.tokenizer)
    try:
        current = engine.resolve()
        assert current is not None
        index = engine.open(current)
        stored = index.export()
        assert sorted(one.id for one in stored.documents) == sorted(damaged.good)
        # Each by its own vector; the number in its title, which no other has, by terms.
        for row, candidates in enumerate(index.dense.search(stored.dense, 10)):
            assert stored.documents[row].id in candidates.ids
        numbers = [one.id.removeprefix("d") for one in stored.documents]
        by_terms = index.sparse.search(encoder.encode_query(numbers).sparse, 10)
        assert [list(found.ids) for found in by_terms] == [[one.id] for one in stored.documents]
        for one in stored.documents:
            assert one.text == document(int(one.id.removeprefix("d")))["text"]
    finally:
        engine.close()
