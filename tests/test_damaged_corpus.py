"""Exactly the damaged lines are rejected, each with its line and reason."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pytest

from steelyard.indexer.reading.documents import documents_of
from steelyard.indexer.reading.readers import open_corpus
from steelyard.indexer.reading.validation import ReadDocument, Rejection
from tests.damaged_corpus import DAMAGES, write_damaged


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_exactly_the_damaged_lines_are_rejected(tmp_path: Path, packed: str) -> None:
    made = write_damaged(tmp_path / "damaged.jsonl", 3000, large=1, seed=len(packed))
    path = made.path
    if packed:
        path = made.path.with_name(made.path.name + packed)
        data = made.path.read_bytes()
        path.write_bytes(
            gzip.compress(data, 1) if packed == ".gz" else pa.compress(data, "zstd", asbytes=True)
        )
    corpus = open_corpus(path)
    good, rejected = [], []
    for result in documents_of(corpus):
        if isinstance(result, ReadDocument):
            good.append((result.line, result.document.id))
        else:
            rejected.append(result)
    assert [read[1] for read in good] == made.good
    assert all(name == f"d{line}" for line, name in good)
    assert len(rejected) == len(made.rejected) == 30 * (len(DAMAGES) - 1) + 1
    for found, expected in zip(rejected, made.rejected, strict=True):
        assert isinstance(found, Rejection)
        assert (found.line, found.id) == (expected.line, expected.id)
        assert found.reason.startswith(expected.reason)
    assert corpus.survey().records == made.lines == len(good) + len(rejected)
