"""The whole job, with a tower that costs nothing: what it survives, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from steelyard.encoders.documents.from_pack import open_document_encoder
from steelyard.encoders.documents.protocol import DocumentEncoder
from steelyard.encoders.folder_lock import locked_file
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import BusyError, EngineError, InputError, StorageError
from steelyard.eval.bench.synthetic import synthetic_corpus, synthetic_pack
from steelyard.indexer.build import (
    EncodeSettings,
    IndexReport,
    encode_documents,
    index_corpus,
    plan_of,
)
from steelyard.indexer.encoding.encode import Encoding
from steelyard.indexer.encoding.finished import FinishedShards
from steelyard.indexer.encoding.manifest import read_manifest
from steelyard.indexer.flow import Flow
from steelyard.indexer.loading.abandon import abandon
from steelyard.indexer.loading.job import LoadSettings
from steelyard.indexer.loading.load import complete_folder, load_folder
from steelyard.indexer.loading.sink import Sink
from steelyard.indexer.reading.corpus import Corpus
from steelyard.indexer.reading.readers import open_corpus
from steelyard.indexer.reporting.recorder import Recorder
from steelyard.plugin.engine import Engine, Generation, Refused, UpsertReport
from steelyard.plugin.urls import open_engine
from steelyard.progress import SilentProgress
from steelyard.types import DocumentVectors, EncodedDocuments

DOCUMENTS, SHARD = 250, 50


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_pack(tmp_path_factory.mktemp("packs") / "pack", dims=16)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return open_corpus(synthetic_corpus(tmp_path / "corpus.jsonl", DOCUMENTS))


class Watched:
    """A real engine; a test is told before each batch, and may raise."""

    def __init__(self, engine: Engine, before: Callable[[EncodedDocuments], None]) -> None:
        self._engine, self._before = engine, before

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def upsert(self, generation: Generation, batch: EncodedDocuments, **more: Any) -> UpsertReport:
        self._before(batch)
        return self._engine.upsert(generation, batch, **more)


class Picky(Watched):
    """A real engine that refuses some ids."""

    refused: frozenset[str] = frozenset()

    def upsert(self, generation: Generation, batch: EncodedDocuments, **more: Any) -> UpsertReport:
        keep = [i for i, d in enumerate(batch.documents) if d.id not in self.refused]
        bad = [Refused(d.id, "poison") for d in batch.documents if d.id in self.refused]
        taken = EncodedDocuments(
            [batch.documents[i] for i in keep], batch.dense[keep], batch.sparse.select(keep)
        )
        report = self._engine.upsert(generation, taken, **more)
        return replace(report, refused=tuple(bad))


def nothing(batch: EncodedDocuments) -> None:
    del batch


def sink(
    folder: Path, name: str = "demo", before: Callable[[EncodedDocuments], None] = nothing
) -> Sink:
    url = f"milvus-lite://{folder / name}.db?name={name}"
    return Sink(url, lambda: Watched(open_engine(url), before))


def settings(folder: Path, **changes: Any) -> EncodeSettings:
    return EncodeSettings(shards=folder / "shards", shard_documents=SHARD, **changes)


def run(corpus: Corpus, pack: Path, sinks: Sequence[Sink], folder: Path) -> IndexReport:
    return index_corpus(corpus, QueryEncoder.load(pack), sinks, SilentProgress(), settings(folder))


def stored(of: Sink) -> dict[str, tuple[Any, Any]]:
    """What an engine holds in the published generation: vectors and impacts by id."""
    engine = of.open()
    try:
        current = engine.resolve()
        assert current is not None
        content = engine.open(current).export()
        return {
            d.id: (content.dense[i].tolist(), content.sparse.row(i)[1].tolist())
            for i, d in enumerate(content.documents)
        }
    finally:
        engine.close()


def generations(of: Sink) -> list[str]:
    engine = of.open()
    try:
        return [g.name for g in engine.generations()]
    finally:
        engine.close()


class FaultError(EngineError):
    """What a test lets happen."""


class Failing:
    """Raises at a batch, once."""

    def __init__(self, at: int) -> None:
        self.at, self.seen = at, 0

    def __call__(self, batch: EncodedDocuments) -> None:
        del batch
        self.seen += 1
        if self.seen == self.at:
            raise FaultError("the engine is gone", "bring it back")


def test_one_encode_fills_several_engines(corpus: Corpus, pack: Path, tmp_path: Path) -> None:
    sinks = [sink(tmp_path, "one"), sink(tmp_path, "two")]
    report = run(corpus, pack, sinks, tmp_path)
    assert [load.documents for load in report.loads] == [DOCUMENTS, DOCUMENTS]
    assert [load.sink for load in report.loads] == [s.url for s in sinks]
    assert stored(sinks[0]) == stored(sinks[1])
    again = run(corpus, pack, sinks, tmp_path)
    assert [load.reused for load in again.loads] == [True, True]
    with pytest.raises(InputError, match="named twice"):
        run(corpus, pack, [sinks[0], sinks[0]], tmp_path)


class Waiting:
    """A tower that makes its last batch only when a test lets it."""

    def __init__(self, inner: DocumentEncoder, batches: int, go: threading.Event) -> None:
        self._inner, self._left, self._go = inner, batches, go

    def encode_document(self, texts: Sequence[str]) -> DocumentVectors:
        self._left -= 1
        if not self._left:
            assert self._go.wait(60)
        return self._inner.encode_document(texts)

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        return self._inner.token_lengths(texts)


def test_loading_begins_before_encoding_ends(corpus: Corpus, pack: Path, tmp_path: Path) -> None:
    queries, loaded = QueryEncoder.load(pack), threading.Event()
    tower = Waiting(open_document_encoder(queries), DOCUMENTS // SHARD, loaded)
    recorder = Recorder()
    report = index_corpus(
        corpus,
        queries,
        [sink(tmp_path, before=lambda batch: loaded.set())],
        recorder,
        settings(tmp_path),
        open_encoder=lambda: tower,
    )
    assert report.load.documents == DOCUMENTS
    assert recorder.facts["count", (("sink", report.load.sink),)] == DOCUMENTS


def test_a_sink_that_fails_says_which_and_goes_on_later(
    corpus: Corpus, pack: Path, tmp_path: Path
) -> None:
    failing = Failing(at=2)
    good, bad = sink(tmp_path, "good"), sink(tmp_path, "bad", failing)
    with pytest.raises(FaultError) as caught:
        run(corpus, pack, [good, bad], tmp_path)
    assert bad.url in caught.value.message
    assert "goes on from here" in caught.value.hint
    (begun,) = generations(bad)
    report = run(corpus, pack, [good, bad], tmp_path)
    assert [load.documents for load in report.loads] == [DOCUMENTS, DOCUMENTS]
    assert report.loads[1].generation == begun
    assert failing.seen == 2 + DOCUMENTS // SHARD - 1  # the first shard was acknowledged
    assert stored(good) == stored(bad)


def test_an_interrupted_load_can_be_abandoned(corpus: Corpus, pack: Path, tmp_path: Path) -> None:
    bad = sink(tmp_path, "bad", Failing(at=3))
    with pytest.raises(FaultError):
        run(corpus, pack, [bad], tmp_path)
    metadata = QueryEncoder.load(pack).metadata
    (begun,) = generations(bad)
    assert abandon(tmp_path / "shards", metadata, bad) == begun
    assert generations(bad) == []
    assert abandon(tmp_path / "shards", metadata, bad) is None
    report = run(corpus, pack, [bad], tmp_path)
    assert report.load.documents == DOCUMENTS
    assert abandon(tmp_path / "shards", metadata, bad) is None
    assert generations(bad) == [report.load.generation]


def test_a_generation_that_was_dropped_meanwhile_is_made_anew(
    corpus: Corpus, pack: Path, tmp_path: Path
) -> None:
    bad = sink(tmp_path, "bad", Failing(at=3))
    with pytest.raises(FaultError):
        run(corpus, pack, [bad], tmp_path)
    engine = bad.open()
    engine.drop(engine.generations()[0])
    engine.close()
    assert run(corpus, pack, [bad], tmp_path).load.documents == DOCUMENTS


@pytest.mark.parametrize("half", ["dense", "sparse"])
def test_half_a_generation_that_was_dropped_is_made_anew(
    corpus: Corpus, pack: Path, tmp_path: Path, half: str
) -> None:
    urls = {arm: f"milvus-lite://{tmp_path / arm}.db?name=demo" for arm in ("dense", "sparse")}
    url = ",".join(f"{arm}={one}" for arm, one in urls.items())
    failing = Failing(at=3)
    pair = Sink(url, lambda: Watched(open_engine(url), failing))
    with pytest.raises(FaultError):
        run(corpus, pack, [pair], tmp_path)
    engine = open_engine(urls[half])
    engine.drop(engine.generations()[0])
    engine.close()
    report = run(corpus, pack, [pair], tmp_path)
    assert report.load.documents == DOCUMENTS
    assert generations(pair) == [report.load.generation]


def test_what_is_acknowledged_but_not_journalled_is_not_doubled(
    corpus: Corpus, pack: Path, tmp_path: Path
) -> None:
    bad = sink(tmp_path, "bad", Failing(at=4))
    with pytest.raises(FaultError):
        run(corpus, pack, [bad], tmp_path)
    (journal,) = (tmp_path / "shards" / "sinks").glob("?" * 16 + ".jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    # The last line is torn, the one before was never written.
    journal.write_bytes(b"".join(lines[:-2]) + lines[-1][:20])
    report = run(corpus, pack, [bad], tmp_path)
    assert report.load.documents == len(stored(bad)) == DOCUMENTS


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_shard_is_encoded_again_and_no_other(
    corpus: Corpus, pack: Path, tmp_path: Path, damage: str
) -> None:
    queries = QueryEncoder.load(pack)
    folder, manifest = encode_documents(corpus, queries, SilentProgress(), settings(tmp_path))
    before = {entry.name: (folder / entry.name).stat().st_mtime_ns for entry in manifest.shards}
    victim = folder / manifest.shards[2].name
    content = victim.read_bytes()
    if damage == "gone":
        victim.unlink()
    else:
        victim.write_bytes(content[:-1] if damage == "cut" else content[:-9] + bytes(9))
    target = sink(tmp_path)
    with pytest.raises(InputError, match=r"shard-00002\.parquet is missing or damaged"):
        load_folder(manifest, folder, queries.metadata, [target], SilentProgress())
    report = run(corpus, pack, [target], tmp_path)
    assert report.load.documents == DOCUMENTS
    assert victim.read_bytes() == content
    after = {entry.name: (folder / entry.name).stat().st_mtime_ns for entry in manifest.shards}
    assert {name for name in before if before[name] != after[name]} == {victim.name}
    assert read_manifest(folder) == manifest


def encoding_of(corpus: Corpus, pack: Path, folder: Path) -> Encoding:
    queries = QueryEncoder.load(pack)
    plan = plan_of(corpus, queries, settings(folder))
    (folder / "shards").mkdir()
    return Encoding(
        corpus, plan, lambda: open_document_encoder(queries), folder / "shards", SilentProgress()
    )


def test_a_pass_that_was_stopped_by_a_damaged_shard_is_made_again(
    corpus: Corpus, pack: Path, tmp_path: Path
) -> None:
    """Stopped while documents were still read: the next one of the same job reads them all."""
    encoding = encoding_of(corpus, pack, tmp_path)
    for stopped in (True, False):
        flow = Flow()
        shards = FinishedShards(flow)
        if stopped:
            flow.finish()
        encoding.start(flow, shards)
        flow.join(lambda: None, 60)
        assert (shards.manifest is None) == stopped


def test_a_corpus_that_changes_while_it_is_read_is_noticed(
    corpus: Corpus, pack: Path, tmp_path: Path
) -> None:
    """Also where it has as many lines as before; a new time alone is no change."""
    encoding = encoding_of(corpus, pack, tmp_path)
    before = corpus.path.read_text()
    for text, wrong in ((before.replace(" ", "  ", 1), True), (before, False)):
        flow = Flow()
        shards = FinishedShards(flow)
        encoding.start(flow, shards)
        taken = encoding.modified
        other = corpus.path.with_suffix(".new")  # put in its place at once, as an export does
        other.write_text(text)
        os.utime(other, (1, 1))
        other.replace(corpus.path)
        if wrong:
            with pytest.raises(InputError, match="was changed while it was read"):
                flow.join(lambda: None, 60)
            os.utime(corpus.path, (2, 2))
            continue
        flow.join(lambda: None, 60)
        assert shards.manifest is not None
        assert shards.manifest.corpus_modified == taken.isoformat()


def test_rejections_that_somebody_took_away_are_still_counted(
    corpus: Corpus, pack: Path, tmp_path: Path
) -> None:
    with corpus.path.open("a") as stream:
        stream.write("not JSON\n")
    assert run(corpus, pack, [sink(tmp_path)], tmp_path).manifest.rejected == 1
    (tmp_path / "shards" / "rejected.jsonl").unlink()
    recorder = Recorder()
    queries = QueryEncoder.load(pack)
    index_corpus(corpus, queries, [sink(tmp_path)], recorder, settings(tmp_path))
    assert recorder.total("documents", stage="rejected") == 1


@pytest.mark.parametrize("place", ["", "sinks"])
def test_a_job_that_runs_already_is_run_again_later(
    corpus: Corpus, pack: Path, tmp_path: Path, place: str
) -> None:
    target = sink(tmp_path)
    run(corpus, pack, [target], tmp_path)
    (lock,) = (tmp_path / "shards" / place).glob(".*lock")
    with locked_file(lock, wait=False), pytest.raises(BusyError, match="another job") as busy:
        run(corpus, pack, [target], tmp_path)
    assert busy.value.exit_code == 7


def test_a_changed_corpus_is_another_job(corpus: Corpus, pack: Path, tmp_path: Path) -> None:
    bad = sink(tmp_path, "bad", Failing(at=3))
    with pytest.raises(FaultError):
        run(corpus, pack, [bad], tmp_path)
    synthetic_corpus(corpus.path, DOCUMENTS + 1)
    with pytest.raises(InputError, match="holds shards of another job"):
        run(corpus, pack, [bad], tmp_path)
    (tmp_path / "other").mkdir()
    report = run(corpus, pack, [bad], tmp_path / "other")
    assert report.load.documents == DOCUMENTS + 1
    assert generations(bad) == [report.load.generation]  # what was begun is not mixed in


def test_refused_documents_are_rejected_and_the_counts_add_up(
    corpus: Corpus, pack: Path, tmp_path: Path
) -> None:
    url = f"milvus-lite://{tmp_path / 'picky.db'}?name=picky"

    def opened(name: str = "picky") -> Any:
        engine = Picky(open_engine(url.replace("picky", name)), nothing)
        engine.refused = frozenset({"d7", "d120"})
        return engine

    picky = Sink(url, opened)
    with corpus.path.open("a", encoding="utf-8") as stream:
        stream.write("{\n")
    queries = QueryEncoder.load(pack)
    with pytest.raises(InputError, match="1 lines rejected, --max-rejected allows 0"):
        index_corpus(
            corpus, queries, [picky], SilentProgress(), settings(tmp_path, max_rejected=0)
        )
    report = run(corpus, pack, [picky], tmp_path)
    assert (report.manifest.read, report.manifest.rejected) == (DOCUMENTS + 1, 1)
    assert (report.load.documents, report.load.refused) == (DOCUMENTS - 2, 2)
    text = (tmp_path / "shards" / "rejected.jsonl").read_text(encoding="utf-8")
    rejected = [json.loads(line) for line in text.splitlines()]
    assert [(r["line"], r["id"], r["engine"]) for r in rejected] == [
        (DOCUMENTS + 1, None, None),
        (None, "d7", url),
        (None, "d120", url),
    ]
    assert run(corpus, pack, [picky], tmp_path).load.reused
    with pytest.raises(InputError, match="2 lines rejected, --max-rejected allows 1"):
        load_folder(
            report.manifest,
            report.shards,
            queries.metadata,
            [Sink(url + "2", lambda: opened("other"))],
            SilentProgress(),
            LoadSettings(max_rejected=1),
        )


def test_an_incomplete_folder_is_not_loaded(corpus: Corpus, pack: Path, tmp_path: Path) -> None:
    bad = sink(tmp_path, "bad", Failing(at=1))
    with pytest.raises(InputError, match="no shards in"):
        complete_folder(tmp_path)
    with pytest.raises(FaultError):
        run(corpus, pack, [bad], tmp_path)
    if read_manifest(tmp_path / "shards") is None:
        with pytest.raises(InputError, match="not complete") as caught:
            complete_folder(tmp_path / "shards")
        assert "encode-documents" in caught.value.hint


def test_a_folder_that_cannot_be_written(corpus: Corpus, pack: Path, tmp_path: Path) -> None:
    """As root only a file system can refuse: a file stands where the folder should be."""
    (tmp_path / "shards").write_text("", encoding="utf-8")
    with pytest.raises(StorageError, match="cannot write"):
        run(corpus, pack, [sink(tmp_path)], tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)],  # noqa: S607
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)  # noqa: S607


def test_a_full_disk_is_a_clear_stop_and_the_job_goes_on(
    corpus: Corpus, pack: Path, tmp_path: Path, small_disk: Path
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(240_000))
    target = sink(tmp_path)
    with pytest.raises(StorageError, match="No space left on device") as caught:
        run(corpus, pack, [target], small_disk)
    assert "goes on from here" in caught.value.hint
    done = {p.name: p.read_bytes() for p in (small_disk / "shards").glob("*.parquet")}
    ballast.unlink()
    report = run(corpus, pack, [target], small_disk)
    assert report.load.documents == DOCUMENTS
    for name, content in done.items():
        assert (small_disk / "shards" / name).read_bytes() == content


def test_a_read_only_disk_is_a_clear_stop(
    corpus: Corpus, pack: Path, tmp_path: Path, small_disk: Path
) -> None:
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(remount, check=True)
    with pytest.raises(StorageError, match="Read-only file system"):
        run(corpus, pack, [sink(tmp_path)], small_disk)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_stop_a_job_where_it_can_go_on(
    pack: Path, tmp_path: Path, number: int, code: int
) -> None:
    corpus = synthetic_corpus(tmp_path / "corpus.jsonl", 20_000)
    shards, url = tmp_path / "shards", f"milvus-lite://{tmp_path / 'a.db'}?name=demo"
    command = [
        *(sys.executable, "-c", "from steelyard.cli import main; main()", "index", str(corpus)),
        *("--pack", str(pack), "--to", url, "--shards", str(shards), "--shard-documents", "500"),
    ]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background ignores it, and that is inherited.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    until(lambda: (shards / "shard-00003.parquet").exists() or process.poll() is not None)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == code, said
    assert f"stopped by {signal.Signals(number).name}" in said
    assert "the same command goes on from here" in said
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "20,000" in finished.stdout


def until(ready: Callable[[], bool]) -> None:
    ended = time.monotonic() + 120
    pause = threading.Event()
    while not ready():
        assert time.monotonic() < ended
        pause.wait(0.01)


def test_no_document_is_there_in_part(corpus: Corpus, pack: Path, tmp_path: Path) -> None:
    """Of a document split into passages the engine refuses one."""
    first = next(corpus.records()).value
    assert first is not None
    whole = str(first["_id"])
    poison = f"{whole}#1"
    url = f"milvus-lite://{tmp_path / 'demo'}.db?name=demo"

    def opened() -> Engine:
        engine = Picky(open_engine(url), nothing)
        engine.refused = frozenset({poison})
        return cast("Engine", engine)

    report = index_corpus(
        corpus,
        QueryEncoder.load(pack),
        [Sink(url, opened)],
        SilentProgress(),
        settings(tmp_path, passages="8/2"),
    )
    found = {identifier.split("#")[0] for identifier in stored(Sink(url, opened))}
    assert whole not in found
    assert len(found) == DOCUMENTS - 1
    passages = report.manifest.encoded - report.load.documents
    assert passages == report.load.refused >= 3
    lines = (report.shards / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["id"].split("#")[0] for line in lines} == {whole}
