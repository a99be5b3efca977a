"""The sizes that a plan foretells are those of real shards and of a real index."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from typer.testing import CliRunner

from steelyard.cli.app import app
from steelyard.indexer.encoding.shards import write_shard
from steelyard.indexer.reading.documents import documents_of
from steelyard.indexer.reading.readers import open_corpus
from steelyard.indexer.reading.validation import ReadDocument
from steelyard.indexer.sizing import (
    Rates,
    Workload,
    duration_of,
    opensearch_index,
    shards_of,
    wire_bytes,
)
from steelyard.plugin.engine import Engine, Generation
from steelyard.plugin.opensearch.bulk import document_items
from steelyard.plugin.quantise import quantise
from steelyard.plugin.urls import open_engine
from steelyard.plugin.vocabulary import TermKeys
from steelyard.types import EncodedDocuments, SparseVectors

pytest_plugins = ["tests.servers.opensearch"]

CORPUS = Path(__file__).parents[1] / "examples" / "scifact-1000"
DIMS = 256
TOLERANCE = 0.15


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    words = sorted({word for d in documents() for word in words_of(d.document.content)})
    tokens = {"[unknown]": 0, **{word: i + 1 for i, word in enumerate(words)}}
    return Tokenizer(WordLevel(tokens, "[unknown]"))


@pytest.fixture(scope="module")
def encoded(tokenizer: Tokenizer) -> EncodedDocuments:
    """Real texts and terms, and vectors as little compressible as real ones."""
    found = [read.document for read in documents()]
    dense = np.random.default_rng(3).standard_normal((len(found), DIMS), np.float32)
    dense /= np.linalg.norm(dense, axis=1, keepdims=True)
    rows, vocabulary = [], tokenizer.get_vocab()
    for document in found:
        counts = Counter(vocabulary[word] for word in words_of(document.content))
        ids = np.array(sorted(counts), np.int32)
        tf = np.array([counts[i] for i in ids.tolist()], np.float32)
        length = 0.25 + 0.75 * tf.sum() / 200  # BM25's part of a document, b 0.75, k1 1.2
        rows.append((ids, tf * np.float32(2.2) / (tf + np.float32(1.2) * np.float32(length))))
    return EncodedDocuments(
        found, dense, SparseVectors.from_rows(rows, tokenizer.get_vocab_size())
    )


def documents() -> list[ReadDocument]:
    return [d for d in documents_of(open_corpus(CORPUS)) if isinstance(d, ReadDocument)]


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def workload(encoded: EncodedDocuments) -> Workload:
    count = len(encoded)
    texts = sum(len((d.title + d.text).encode()) for d in encoded.documents)
    return Workload(count, 200, DIMS, len(encoded.sparse.ids) / count, texts / count, 400)


def generation(name: str, encoded: EncodedDocuments, arms: tuple[str, ...]) -> Generation:
    return Generation(
        name=name,
        dense_space="dense-0",
        sparse_space="sparse-0",
        pack_id="pack-0",
        content="content-0",
        dims=DIMS,
        vocabulary_size=encoded.sparse.vocabulary_size,
        scale=100.0,
        fields={},
        arms=arms,
    )


def test_shards(tmp_path: Path, encoded: EncodedDocuments) -> None:
    path = tmp_path / "shard.parquet"
    write_shard(path, encoded, {})
    expected = shards_of(workload(encoded))
    assert expected.bytes == pytest.approx(path.stat().st_size, rel=TOLERANCE)
    assert expected.count == -(-len(encoded) // 400) == 3


def test_bulk_requests(tokenizer: Tokenizer, encoded: EncodedDocuments) -> None:
    keys, impacts = TermKeys(tokenizer), quantise(encoded.sparse, 100.0)[0]
    for arms in (("dense", "sparse"), ("sparse",)):
        items = document_items(generation("x", encoded, arms), encoded, impacts, keys)
        sent = sum(len(lines) for _, lines in items)
        expected = wire_bytes(workload(encoded), dense="dense" in arms)
        assert expected == pytest.approx(sent, rel=TOLERANCE)


@pytest.mark.opensearch
@pytest.mark.parametrize("dense", [True, False])
def test_an_index_in_opensearch(
    opensearch_url: str, tokenizer: Tokenizer, encoded: EncodedDocuments, dense: bool
) -> None:
    arms = ("dense", "sparse") if dense else ("sparse",)
    alias = f"sizing_{dense}".lower()
    host = opensearch_url.removeprefix("http://")
    name = f"{alias}_20260101000000_abcdef12"
    with opened(f"opensearch://{host}/{alias}", tokenizer) as engine:
        made = generation(name, encoded, arms)
        engine.create(made)
        try:
            engine.upsert(made, encoded)
            engine.seal(made)
            _ask(f"{opensearch_url}/{name}/_forcemerge?max_num_segments=1", "POST")
            sizes = "segments,store?include_segment_file_sizes=true"
            found = _ask(f"{opensearch_url}/{name}/_stats/{sizes}")["_all"]["primaries"]
        finally:
            engine.drop(made)
    stored = found["store"]["size_in_bytes"]
    graph = found["segments"]["file_sizes"].get("vex", {"size_in_bytes": 0})["size_in_bytes"]
    expected = opensearch_index(workload(encoded), dense=dense)
    assert expected.total - expected.graph == pytest.approx(stored - graph, rel=TOLERANCE)
    assert graph <= expected.graph
    assert (graph > 0) is dense


@contextmanager
def opened(url: str, tokenizer: Tokenizer) -> Iterator[Engine]:
    engine = open_engine(url, vocabulary=tokenizer)
    try:
        yield engine
    finally:
        engine.close()


def _ask(url: str, method: str = "GET") -> Any:
    with urlopen(Request(url, method=method)) as answer:  # noqa: S310  (a node of our own)
        return json.load(answer)


def test_hours() -> None:
    work = Workload(3_600_000, 100, DIMS, 1, 1)
    took = duration_of(
        work, Rates(tokens_per_second=1000, encoders=4, load_documents_per_second=100)
    )
    assert (took.encoder_hours, took.encode, took.load, took.job) == (100, 90_000, 36_000, 90_000)


def test_the_command(tmp_path: Path) -> None:
    arguments = [
        "plan",
        "--documents",
        "1000000",
        "--dims",
        "100",
        "--terms",
        "50",
        "--text-bytes",
    ]
    arguments += ["500", "--tokens-per-second", "1e4", "--load-rate", "2000", "--replicas", "2"]
    arguments += ["--json", str(tmp_path / "plan.json")]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    plan = json.loads((tmp_path / "plan.json").read_text())
    copy = sum(plan["b"]["opensearch"].values())
    # Live and one kept, each with two replicas, and the next one without.
    assert plan["b"]["disk_peak"] == 7 * copy
    assert plan["shards"]["count"] == 489
    assert plan["a"]["opensearch"]["vectors"] == 0
    assert plan["a"]["milvus_memory"]["vectors"] == 400_000_000
    assert "6 encoder hours, 5.6 h on 1" in " ".join(done.output.split())
