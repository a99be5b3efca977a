"""Documents that engines refuse, and servers that come and go, in the middle of a load."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import EngineError, SteelyardError
from steelyard.eval.bench.synthetic import synthetic_corpus, synthetic_pack
from steelyard.indexer.build import EncodeSettings, encode_documents
from steelyard.indexer.loading.job import LoadSettings
from steelyard.indexer.loading.load import load_folder
from steelyard.indexer.loading.sink import Sink, steady_url
from steelyard.indexer.reading.readers import open_corpus
from steelyard.local_servers.opensearch_node import local_node
from steelyard.plugin.backoff import Backoff
from steelyard.plugin.engine import Engine, Generation, UpsertReport
from steelyard.plugin.paired import PairedEngine
from steelyard.plugin.urls import open_engine
from steelyard.progress import SilentProgress
from steelyard.types import EncodedDocuments
from tests.test_milvus_lite import documents, generation
from tests.test_opensearch_faults import Letters

pytest_plugins = ["tests.servers.opensearch"]


def spoilt(*bad: int) -> EncodedDocuments:
    """Forty documents, some of them with a text where a number belongs."""
    content = documents(40)
    made = [
        replace(d, metadata={"stock": "many"}) if i in bad else d
        for i, d in enumerate(content.documents)
    ]
    return EncodedDocuments(made, content.dense, content.sparse)


@pytest.fixture
def node(opensearch_url: str) -> Iterator[Engine]:
    opened = open_engine(
        f"opensearch://{opensearch_url.removeprefix('http://')}/demo", vocabulary=Letters()
    )
    yield opened
    for one in opened.generations():
        opened.drop(one)
    opened.close()


@pytest.mark.opensearch
def test_opensearch_names_poison_documents_and_takes_the_others(node: Engine) -> None:
    node.create(generation())
    report = node.upsert(generation(), spoilt(3, 5), report_refused=True)
    assert [one.id for one in report.refused] == ["d3", "d5"]
    assert "many" in report.refused[0].reason
    node.seal(generation())
    assert node.open(generation()).count() == 38
    with pytest.raises(EngineError, match="refuses 2 of 40 documents"):
        node.upsert(generation(), spoilt(3, 5))


@pytest.mark.milvus
def test_milvus_lite_names_poison_documents_and_takes_the_others(engine: Engine) -> None:
    engine.create(generation())
    report = engine.upsert(generation(), spoilt(0, 17, 18), report_refused=True)
    assert [one.id for one in report.refused] == ["d0", "d17", "d18"]
    engine.seal(generation())
    assert engine.open(generation()).count() == 37
    with pytest.raises(EngineError):
        engine.upsert(generation(), spoilt(3, 5))
    everything = spoilt(*range(40))
    with pytest.raises(EngineError, match="could not write"):
        engine.upsert(generation(), everything, report_refused=True)


@pytest.mark.opensearch
def test_a_document_that_one_of_a_pair_refuses_is_in_neither(node: Engine, engine: Engine) -> None:
    class Lenient:
        """The follower without its metadata, so that only the lead refuses."""

        def __getattr__(self, name: str) -> object:
            return getattr(engine, name)

        def upsert(
            self, to: Generation, batch: EncodedDocuments, *, report_refused: bool = False
        ) -> UpsertReport:
            bare = [replace(d, metadata={}) for d in batch.documents]
            return engine.upsert(
                to,
                EncodedDocuments(bare, batch.dense, batch.sparse),
                report_refused=report_refused,
            )

    for follower, bad in ((Lenient(), [2, 30]), (engine, [7])):
        pair = PairedEngine(follower, node)  # type: ignore[arg-type]
        made = generation(f"demo_20260101000000_0000000{len(bad)}")
        pair.create(made)
        report = pair.upsert(made, spoilt(*bad), report_refused=True)
        assert [one.id for one in report.refused] == [f"d{i}" for i in bad]
        pair.seal(made)  # which compares the counts
        assert pair.open(made).counts() == (40 - len(bad), 40 - len(bad))
        pair.drop(made)


@pytest.fixture
def server_data() -> Iterator[Path]:
    """A folder that the server's user can enter."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="steelyard-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "data"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.mark.opensearch
def test_a_node_that_is_restarted_in_the_middle_of_a_load(
    tmp_path: Path, server_data: Path
) -> None:
    """It loses nothing that it acknowledged, and the load waits for it."""
    queries = QueryEncoder.load(synthetic_pack(tmp_path / "pack", dims=16))
    corpus = open_corpus(synthetic_corpus(tmp_path / "corpus.jsonl", 2000))
    settings = EncodeSettings(shards=tmp_path / "shards", shard_documents=100)
    folder, manifest = encode_documents(corpus, queries, SilentProgress(), settings)
    port, data = free_port(), server_data
    url = f"opensearch://127.0.0.1:{port}/demo"
    middle = threading.Event()
    seen: list[int] = []

    class Counting:
        """Tells when some shards are loaded."""

        def __init__(self, engine: Engine) -> None:
            self._engine = engine

        def __getattr__(self, name: str) -> object:
            return getattr(self._engine, name)

        def upsert(
            self, to: Generation, batch: EncodedDocuments, *, report_refused: bool = False
        ) -> UpsertReport:
            seen.append(len(batch))
            if len(seen) == 5:
                middle.set()
                assert down.wait(120)
            return self._engine.upsert(to, batch, report_refused=report_refused)

    def opened() -> Engine:
        engine = open_engine(url, vocabulary=queries.tokenizer)
        engine.backoff = Backoff(patience=240)  # type: ignore[attr-defined]
        return Counting(engine)  # type: ignore[return-value]

    down = threading.Event()
    told: list[object] = []

    def load() -> None:
        try:
            sinks = [Sink(url, opened)]
            told.extend(
                load_folder(
                    manifest,
                    folder,
                    queries.metadata,
                    sinks,
                    SilentProgress(),
                    LoadSettings(patience=240),
                )
            )
        except SteelyardError as error:
            told.append(error)

    with ExitStack() as held:
        first = held.enter_context(ExitStack())
        first.enter_context(local_node(ml=False, port=port, data=data, quick=True))
        loader = threading.Thread(target=load)
        loader.start()
        assert middle.wait(120)
        first.close()
        down.set()
        held.enter_context(local_node(ml=False, port=port, data=data, quick=True))
        loader.join(240)
        assert not loader.is_alive()
        (report,) = told
        assert not isinstance(report, SteelyardError), report
        engine = open_engine(url, vocabulary=queries.tokenizer)
        current = engine.resolve()
        assert current is not None
        assert engine.open(current).count() == 2000
        assert len(seen) == 20  # no shard was sent from the start again
        engine.close()


def test_back_off_goes_on_for_as_long_as_its_patience() -> None:
    waited: list[float] = []
    attempts = sum(1 for _ in Backoff(attempts=3, wait=waited.append))
    assert (attempts, len(waited)) == (3, 2)
    patient = Backoff(attempts=2, patience=0.2, base=1e-4, cap=1e-3)
    lasts = list(patient)
    assert lasts[-1]
    assert not any(lasts[:-1])
    assert len(lasts) > 2
    assert len(list(patient.waits())) > 2


def test_an_engine_has_one_name_wherever_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    absolute = f"milvus-lite://{tmp_path / 'x.db'}?name=demo"
    assert steady_url("milvus-lite:x.db?name=demo") == absolute
    assert steady_url(absolute) == absolute
    pair = "sparse=opensearch://h:1/a,dense=milvus://h:2/a"
    assert steady_url(pair) == "dense=milvus://h:2/a,sparse=opensearch://h:1/a"
