"""Twenty switch-overs, every second one to a new pack, under a reader that never stops.

On real servers: dense vectors in Milvus, terms and texts in OpenSearch. A generation's documents
carry its number, and its vectors are turned by a rotation of its own, so that a mixed answer, or
one encoded by the wrong pack, cannot look right.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from steelyard.encoders.pack.files import write_pack
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.encoders.query.tables import table_tensors
from steelyard.errors import EngineError
from steelyard.indexer.loading.load import exact_index
from steelyard.plugin.deadline import Deadline
from steelyard.plugin.engine import Engine, Generation
from steelyard.plugin.packs import open_packs
from steelyard.plugin.search.answer import Answer
from steelyard.plugin.search.arm_threads import ArmThreads
from steelyard.plugin.search.current import CurrentGeneration
from steelyard.plugin.searcher import Searcher
from steelyard.plugin.urls import open_engine
from steelyard.types import Document, EncodedDocuments
from tests.conftest import Small
from tests.memory_engine import MemoryEngine, encoded
from tests.test_searcher import TEXTS

pytest_plugins = ["tests.servers.opensearch", "tests.servers.milvus"]

SWITCHES = 20
K = 10
QUERIES = ["heart attack", "vitamin D and bone density", "gene expression in mice"]


@dataclass
class Turned:
    """A pack whose space is the small pack's, turned by an orthogonal matrix."""

    encoder: QueryEncoder
    rotation: np.ndarray


@dataclass
class Reader:
    """Searches until it is stopped, and notes everything."""

    answers: list[tuple[str, int, Answer]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    last: str = ""

    def read(self, searcher: Searcher, stop: threading.Event) -> None:
        turn = 0
        while not stop.is_set():
            text = QUERIES[turn % len(QUERIES)]
            turn += 1
            feedback = 3 * (turn % 2)
            try:
                answer = searcher.search(text, K, feedback=feedback)
            except Exception as error:  # told by the test, which runs in another thread
                self.failures.append(repr(error))
                return
            self.answers.append((text, feedback, answer))
            self.last = answer.generation


def turned(small: Small, folder: Path, number: int) -> Turned:
    """Pack ``number``: another space, another table; 0 is not turned."""
    made = QueryEncoder.load(small.pack)
    dims = made.dims
    rotation = np.eye(dims, dtype=np.float32)
    if number:
        noise = np.random.default_rng(number).normal(size=(dims, dims))
        rotation = np.linalg.qr(noise)[0].astype(np.float32)
    spec = replace(made.metadata.document_encoder, weights=f"{number:064d}")
    metadata = replace(made.metadata, name=f"pack{number}", document_encoder=spec)
    (table,) = made.tables.values()
    rows = np.asarray(table.rows, np.float32) @ rotation
    tensors = table_tensors(rows, "float32", made.metadata.dense.default_table)
    write_pack(folder, metadata, made.tokenizer_json, tensors, made.query_weights)
    return Turned(QueryEncoder.load(folder), rotation)


@pytest.fixture
def pair(opensearch_url: str, milvus_address: str, small: Small) -> Iterator[tuple[str, Engine]]:
    node = urlsplit(opensearch_url).netloc
    url = f"dense=milvus://{milvus_address}/switched,sparse=opensearch://{node}/switched"
    engine = open_engine(url, vocabulary=small.encoder.tokenizer)
    yield url, engine
    engine.close()


def build(engine: Engine, content: EncodedDocuments, pack: Turned, number: int) -> Generation:
    """A whole generation, not yet published."""
    metadata = pack.encoder.metadata
    moment = datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=number)
    generation = Generation(
        f"switched_{moment:%Y%m%d%H%M%S}_{number:08x}",
        metadata.spaces.dense,
        metadata.spaces.sparse,
        metadata.pack_id,
        f"content{number}",
        pack.encoder.dims,
        pack.encoder.vocabulary_size,
        metadata.sparse.scale,
        {"number": "int"},
    )
    documents = [replace(d, metadata={"number": number}) for d in content.documents]
    batch = EncodedDocuments(documents, content.dense @ pack.rotation, content.sparse)
    engine.create(generation)
    engine.upsert(generation, batch)
    engine.seal(generation)
    return generation


def built(
    engine: Engine, small: Small, packs: Path, content: EncodedDocuments
) -> list[Generation]:
    """All generations but the first, some at a time: most of it is waiting for the servers."""
    numbers = range(1, SWITCHES + 1)
    made = {n: turned(small, packs / f"p{n}", n) for n in numbers if n % 2 == 0}
    made[0] = turned(small, packs / "p0-again", 0)
    with ThreadPoolExecutor(5) as builders:
        return list(builders.map(lambda n: build(engine, content, made[n - n % 2], n), numbers))


def dense_scores(answer: Answer) -> dict[str, float]:
    """Of the hits; 0 where the dense arm did not return one."""
    return {hit.id: hit.dense.score if hit.dense else 0.0 for hit in answer.hits}


@pytest.mark.opensearch
@pytest.mark.milvus
def test_a_reader_during_twenty_switch_overs(
    small: Small, pair: tuple[str, Engine], tmp_path: Path
) -> None:
    url, engine = pair
    made, packs = small.made, tmp_path / "packs"
    exact = exact_index(made.manifest, made.shards, made.metadata)
    scale = made.metadata.sparse.scale
    impacts = exact.export()
    content = replace(
        impacts, sparse=replace(impacts.sparse, weights=(impacts.sparse.weights + 0.5) / scale)
    )
    pack = turned(small, packs / "p0", 0)
    generation = build(engine, content, pack, 0)
    engine.publish(generation)
    current, published = generation, {generation.name: 0}
    reader, stop = Reader(), threading.Event()
    lags: list[float] = []
    with Searcher(open_packs(packs), open_engine(url), resolve_every=1.0) as searcher:
        first = {text: dense_scores(searcher.search(text, K)) for text in QUERIES}
        thread = threading.Thread(target=reader.read, args=(searcher, stop))
        thread.start()
        try:
            for number, generation in enumerate(built(engine, small, packs, content), start=1):
                older, current = current, generation
                published[generation.name] = number
                engine.publish(generation)
                moment = time.monotonic()
                if number % 3 == 0:
                    engine.drop(older)  # at once, under the reader's hands
                while reader.last != generation.name and thread.is_alive():
                    assert time.monotonic() - moment < 60, f"still on {reader.last}"
                    time.sleep(0.01)
                lags.append(time.monotonic() - moment)
        finally:
            stop.set()
            thread.join()
        assert reader.failures == []
        assert searcher.search(QUERIES[0], K).generation == generation.name
    names = [answer.generation for _, _, answer in reader.answers]
    assert names == sorted(names)
    assert set(names) == set(published)
    for text, feedback, answer in reader.answers:
        assert (answer.missing, answer.behind) == ({}, "")
        assert len(answer.hits) == K
        numbers = {hit.document.metadata["number"] for hit in answer.hits if hit.document}
        assert numbers == {published[answer.generation]}
        if not feedback:
            found = dense_scores(answer)
            assert len(set(found) & set(first[text])) >= K - 1
            assert all(found[i] == pytest.approx(first[text][i], abs=1e-3) for i in found
                       if i in first[text])  # fmt: skip
    for old in engine.generations():
        if old.name != generation.name:
            engine.drop(old)
    print(
        f"{len(reader.answers)} searches during {SWITCHES} switch-overs, every second one to a "
        f"new pack; the reader (which reads the alias every second) followed after "
        f"{max(lags):.2f} s at most, {sorted(lags)[len(lags) // 2]:.2f} s in the median"
    )


def test_the_alias_is_read_again_after_five_seconds(tiny_encoder: QueryEncoder) -> None:
    engine, now = MemoryEngine(), [100.0]
    documents = encoded(tiny_encoder, [Document(f"d{i}", t) for i, t in enumerate(TEXTS)])
    first = engine.add(documents, tiny_encoder)
    threads = ArmThreads()
    with Searcher(tiny_encoder, engine) as searcher:
        packs = searcher._current._packs
        current = CurrentGeneration(engine, packs, threads, clock=lambda: now[0])
        assert current.get(Deadline(None)).generation == first
        second = engine.add(documents, tiny_encoder)
        now[0] += 5.0
        assert current.get(Deadline(None)).generation == first
        now[0] += 0.001
        assert current.get(Deadline(None)).generation == second
        engine.faults.failing = {"resolve"}
        with pytest.raises(EngineError, match="resolve is out of order"):
            CurrentGeneration(engine, packs, threads).get(Deadline(None))
    threads.close(wait=True)
