"""Vectors that someone else wrote: stamped, compared with the encoder, searched by look-up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from pymilvus import MilvusClient

from steelyard.indexer.encoding.shards import read_shard
from steelyard.plugin.searcher import Searcher
from steelyard.plugin.urls import open_engine
from steelyard.types import EncodedDocuments
from tests.conftest import Small
from tests.servers.opensearch_node import ask
from tests.test_cli import fails, ok

pytest_plugins = ["tests.servers.opensearch", "tests.servers.opensearch_alias"]

TEXT = "heart attack"


def encoded(small: Small) -> EncodedDocuments:
    """What the model itself made of the first shard's documents."""
    made = small.made
    return read_shard(made.shards / made.manifest.shards[0].name)


def collection(*arguments: Any, **named: Any) -> None:
    """In a process of its own: the file belongs to one, and the commands need it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as another:
        another.submit(filled, *arguments, **named).result()


def filled(path: Path, content: EncodedDocuments, vectors: Any, metric: str = "COSINE") -> None:
    """As a team might have filled it: numbers as keys, names of its own, more than we need."""
    client = MilvusClient(str(path))
    client.create_collection("theirs", dimension=content.dense.shape[1], metric_type=metric)
    rows = [
        {
            "id": number,
            "vector": vector,
            "headline": document.title,
            "body": document.text,
            "length": len(document.text),
        }
        for number, (document, vector) in enumerate(zip(content.documents, vectors, strict=True))
    ]
    client.insert("theirs", rows)
    client.flush("theirs")
    client.close()


COLUMNS = ["--column", "title=headline", "--column", "text=body", "--metadata", "length:int"]


def test_a_collection_in_milvus_lite(small: Small, tmp_path: Path) -> None:
    content, path, report = encoded(small), tmp_path / "theirs.db", tmp_path / "adopt.json"
    collection(path, content, content.dense)
    url = f"milvus-lite://{path}?name=docs"
    output = ok("adopt", "theirs", "--pack", small.pack, "--to", url, *COLUMNS, "--json", report)
    assert "median cosine" in output
    told = json.loads(report.read_text(encoding="utf-8"))
    assert told["documents"] == len(content)
    assert told["verified"] == 20
    assert told["least cosine"] > 0.999
    assert told["columns"]["dense"] == "vector"
    with Searcher.open(small.pack, url) as searcher:
        hits = searcher.search(TEXT, 5, feedback=3, explain=True).hits
        query = small.encoder.encode_dense([TEXT])[0]
        best = content.documents[int(np.argmax(content.dense @ query))]
        found = searcher.search(TEXT, 1).hits[0]
        assert found.document is not None
        assert found.document.title == best.title
        assert all(hit.sparse is None for hit in hits)
    assert best.title in ok(
        "search", TEXT, "--pack", small.pack, "--to", url,
        "--filter", json.dumps({"range": {"length": {"gt": 0}}}),
    )  # fmt: skip


def test_vectors_of_another_model_are_refused(small: Small, tmp_path: Path) -> None:
    content, path = encoded(small), tmp_path / "theirs.db"
    collection(path, content, np.roll(content.dense, 1, axis=1))
    url = f"milvus-lite://{path}?name=docs"
    command = ["adopt", "theirs", "--pack", small.pack, "--to", url]
    fails(3, "are not the pack's: of 20 documents encoded again", *command, *COLUMNS)
    engine = open_engine(url)
    assert engine.resolve() is None
    engine.close()
    fails(2, "stores no texts to compare by", *command)
    fails(2, "cannot read --column 'title'", *command, "--column", "title")
    fails(4, "no collection 'nobody'", "adopt", "nobody", *command[2:])
    ok(*command, *COLUMNS, "--verify", 0)
    engine = open_engine(url)
    stamped = engine.resolve()
    engine.close()
    assert stamped is not None
    fails(3, "are not the pack's", *command, *COLUMNS)
    engine = open_engine(url)
    assert engine.resolve() == stamped  # a look that fails changes nothing
    engine.close()


def test_vectors_that_are_not_of_length_one(small: Small, tmp_path: Path) -> None:
    content, path = encoded(small), tmp_path / "long.db"
    collection(path, content, content.dense * 3, metric="IP")
    command = ["adopt", "theirs", "--pack", small.pack, "--to", f"milvus-lite://{path}?name=docs"]
    fails(3, "are not of length 1 but 3.000 to 3.000", *command, *COLUMNS)


@pytest.fixture
def theirs(opensearch_url: str, alias: str, small: Small) -> Iterator[str]:
    """An index as a team might have made it."""
    content, name = encoded(small), f"{alias}-theirs"
    properties = {
        "embedding": {
            "type": "knn_vector",
            "dimension": content.dense.shape[1],
            "method": {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"},
        },
        "headline": {"type": "text"},
        "body": {"type": "text"},
    }
    body = {"settings": {"index": {"knn": True}}, "mappings": {"properties": properties}}
    ask(opensearch_url, "PUT", f"/{name}", body)
    lines = []
    for document, vector in zip(content.documents, content.dense, strict=True):
        lines.append(json.dumps({"index": {"_id": document.id}}))
        source = {"embedding": vector.tolist(), "headline": document.title, "body": document.text}
        lines.append(json.dumps(source))
    ask(opensearch_url, "POST", f"/{name}/_bulk?refresh=true", "\n".join(lines) + "\n")
    yield name
    ask(opensearch_url, "DELETE", f"/{name}")


@pytest.mark.opensearch
def test_an_index_in_opensearch(
    small: Small, opensearch_url: str, alias: str, theirs: str
) -> None:
    url = f"opensearch://{urlsplit(opensearch_url).netloc}/{alias}"
    to = ["--pack", small.pack, "--to", url]
    ok("adopt", theirs, *to, *COLUMNS[:4])
    title = encoded(small).documents[7].title
    assert title in ok("search", title, *to, "--k", 1)
    both = ["search", title, *to, "--k", 2, "--arms", "dense,match"]
    assert "match" in ok(*both, "--highlight", "--title-boost", 3)
    # A generation of ours takes the alias over, and the adopted index stays.
    ok("index", small.corpus, *to)
    assert title in ok("search", title, *to, "--k", 1, "--explain")
    assert ask(opensearch_url, "GET", f"/{theirs}/_count")["count"] == len(encoded(small))
    for name in ask(opensearch_url, "GET", f"/{alias}_*/_settings"):
        ask(opensearch_url, "DELETE", f"/{name}")
