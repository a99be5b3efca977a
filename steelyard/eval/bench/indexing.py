"""What a whole indexing job costs beyond its slower half, and whether its memory is flat.

Every job is a process of its own: it starts with nothing in memory, and its peak is its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import SteelyardError
from steelyard.eval.bench.counting_engine import CountingEngine
from steelyard.eval.bench.resident_memory import peak_resident_bytes
from steelyard.eval.bench.synthetic import synthetic_corpus, synthetic_pack
from steelyard.indexer.build import EncodeSettings, encode_documents, index_corpus
from steelyard.indexer.loading.load import complete_folder, load_folder
from steelyard.indexer.loading.sink import Sink
from steelyard.indexer.reading.readers import open_corpus
from steelyard.plugin.urls import open_engine
from steelyard.progress import Progress, SilentProgress

COUNT = "count:"
"""In place of an engine's URL: ``CountingEngine``."""

ENCODE, LOAD, WHOLE = "encode", "load", "whole"


@dataclass(frozen=True, slots=True)
class Overlap:
    """Seconds of a job and of its halves alone.

    Attributes:
        documents: of the corpus.
        encode, load: alone.
        whole: both, overlapping.
        ratio: whole / max(encode, load).
    """

    documents: int
    encode: float
    load: float
    whole: float
    ratio: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak resident set of a whole job, in MB.

    Attributes:
        documents, many: of the two corpora.
        peak, peak_of_many: of the two jobs.
        ratio: the second / the first.
    """

    documents: int
    many: int
    peak: float
    peak_of_many: float
    ratio: float


def bench_overlap(
    folder: Path, url: str, documents: int, rounds: int, progress: Progress, *, dims: int = 384
) -> Overlap:
    """Time encode alone, load alone and the whole job; of each the fastest of the rounds.

    Args:
        folder: for what is made; empty.
        url: of the engine, ``{}`` where the name of the index is.
        documents: short ones, of made-up words.
        rounds: of each, in turns.
        progress: shows them.
        dims: of the vectors.
    """
    pack = synthetic_pack(folder / "pack", dims=dims)
    corpus = synthetic_corpus(folder / "corpus.jsonl", documents)
    seconds: dict[str, list[float]] = {ENCODE: [], LOAD: [], WHOLE: []}
    for turn in range(rounds):
        apart, together = folder / f"apart{turn}", folder / f"whole{turn}"
        for what, shards in ((ENCODE, apart), (LOAD, apart), (WHOLE, together)):
            with progress.stage(f"{what}, round {turn + 1}"):
                told = _process(what, corpus, pack, shards, url.format(f"bench_{what}_{turn}"))
            seconds[what].append(told["seconds"])
    encode, load, whole = (min(seconds[what]) for what in (ENCODE, LOAD, WHOLE))
    ratio = whole / max(encode, load)
    return Overlap(documents, round(encode, 2), round(load, 2), round(whole, 2), round(ratio, 3))


def bench_memory(
    folder: Path, url: str, documents: int, times: int, progress: Progress, *, dims: int = 384
) -> Memory:
    """Peak memory of a job, and of one that is so many times as large.

    Args:
        folder: for what is made; empty.
        url: of the engine, ``{}`` where the name of the index is. A Milvus Lite file lives in
            the memory of the job: take a server, or ``count:{}``, which keeps nothing.
        documents: of the smaller one.
        times: as many in the larger one.
        progress: shows them.
        dims: of the vectors.
    """
    pack = synthetic_pack(folder / "pack", dims=dims)
    peaks = []
    for count in (documents, documents * times):
        corpus = synthetic_corpus(folder / f"corpus{count}.jsonl", count)
        with progress.stage(f"index {count:,} documents"):
            name = url.format(f"bench_memory_{count}")
            peaks.append(_process(WHOLE, corpus, pack, folder / f"shards{count}", name)["peak"])
    few, many = peaks
    if few is None or many is None:
        raise SteelyardError(
            "this system does not tell how much memory a process took at its peak",
            "measure on Linux",
        )
    return Memory(documents, documents * times, round(few), round(many), round(many / few, 3))


def result_of(measured: Overlap | Memory) -> dict[str, Any]:
    """For JSON."""
    return asdict(measured)


def _process(what: str, corpus: Path, pack: Path, shards: Path, url: str) -> dict[str, Any]:
    """One job in a fresh process: its seconds, imports aside, and MB at its peak, if known."""
    arguments = json.dumps([what, *map(str, (corpus, pack, shards)), url])
    done = subprocess.run(  # noqa: S603  (a list, never a shell)
        [sys.executable, "-m", "steelyard.eval.bench.indexing", arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SteelyardError(f"a job ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def _job(what: str, corpus: str, pack: str, shards: str, url: str) -> None:
    """What runs in the process."""
    queries, progress = QueryEncoder.load(pack), SilentProgress()
    folder = Path(shards)
    if url.startswith(COUNT):
        counting: Any = CountingEngine(url.removeprefix(COUNT))
        sinks = [Sink(url, lambda: counting, closes=False)]
    else:
        sinks = [Sink(url, lambda: open_engine(url, vocabulary=queries.tokenizer))]
        sinks[0].open().close()  # imports the client
    settings = EncodeSettings(shards=folder)
    source = open_corpus(Path(corpus))
    started = time.perf_counter()
    if what == ENCODE:
        encode_documents(source, queries, progress, settings)
    elif what == LOAD:
        load_folder(complete_folder(folder), folder, queries.metadata, sinks, progress)
    else:
        index_corpus(source, queries, sinks, progress, settings)
    seconds = time.perf_counter() - started
    peak = peak_resident_bytes()
    print(json.dumps({"seconds": seconds, "peak": None if peak is None else peak / (1 << 20)}))


if __name__ == "__main__":
    _job(*json.loads(sys.argv[1]))
