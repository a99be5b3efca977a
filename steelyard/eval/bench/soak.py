"""A job that is killed again and again: nothing may be lost, nothing doubled.

Every run of the job is a process of its own, ended by ``kill -9`` at a random moment of a stage
chosen at random, and started again until it ends by itself. Shards and rankings are then compared
with those of a job that nobody disturbed.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import SteelyardError
from steelyard.eval.bench.synthetic import synthetic_corpus, synthetic_pack, synthetic_queries
from steelyard.indexer.encoding.manifest import JOURNAL, MANIFEST, read_manifest
from steelyard.indexer.loading.journal import FOLDER
from steelyard.plugin.urls import open_engine
from steelyard.progress import Progress
from steelyard.types import DenseVectors, SparseVectors

ENCODE, LOAD, SWITCH = "encode", "load", "switch"
"""Where a kill is aimed at; which stage it meets is told by the journals."""

_POLL = 0.002
_RUN_SECONDS = 600.0
_DEEP, _CANDIDATES = 20, 400
"""Ranks compared, and candidates asked for: approximate search is then exact in the first ones."""


class SoakError(SteelyardError):
    """A job that was killed did not end as an undisturbed one."""


@dataclass(slots=True)
class SoakReport:
    """What was done, and found.

    Attributes:
        kills: by the stage in which they came.
        runs: processes started.
        documents: in the index at the end.
        queries: whose rankings are the same in every arm.
    """

    kills: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    documents: int = 0
    queries: int = 0


@dataclass(frozen=True, slots=True)
class SoakSettings:
    """How to soak.

    Attributes:
        kills: at least so many, in as many jobs as that takes.
        kills_a_job: after so many a job is left to end.
        documents: of the corpus.
        shard_documents: of a shard.
        queries: whose rankings are compared.
        seed: of the moments.
    """

    kills: int = 10
    kills_a_job: int = 10
    documents: int = 3000
    shard_documents: int = 200
    queries: int = 50
    seed: int = 0


def soak(
    folder: Path, target: Callable[[str], str], settings: SoakSettings, progress: Progress
) -> SoakReport:
    """Kill jobs of synthetic documents and compare what they end with.

    Args:
        folder: for the corpus, the pack and the shards; empty.
        target: the engine's URL for an alias.
        settings: how.
        progress: shows the kills.

    Raises:
        SoakError: documents, shards or rankings differ.
    """
    pack = synthetic_pack(folder / "pack", dims=32)
    corpus = synthetic_corpus(folder / "corpus.jsonl", settings.documents)
    chance, report = random.Random(settings.seed), SoakReport()  # noqa: S311
    calm = _Job(corpus, pack, target("soak_calm"), folder / "calm", settings.shard_documents)
    calm.run()
    expected = _outcome(calm, settings.queries)
    number = 0
    with progress.stage("kill jobs", settings.kills) as advance:
        while report.kills.total() < settings.kills:
            shards = folder / f"shards{number}"
            job = _Job(corpus, pack, target(f"soak_{number}"), shards, settings.shard_documents)
            left = min(settings.kills - report.kills.total(), settings.kills_a_job)
            _disturb(job, left, chance, report, advance)
            found = _outcome(job, settings.queries)
            _compare(expected, found, job)
            report.documents, report.queries = len(found.ids), settings.queries
            shutil.rmtree(shards)
            number += 1
    return report


def _disturb(
    job: _Job,
    kills: int,
    chance: random.Random,
    report: SoakReport,
    advance: Callable[[int], None],
) -> None:
    """Kill a job so often, then let it end."""
    for _ in range(kills):
        stage = chance.choice([ENCODE, LOAD, SWITCH])
        report.runs += 1
        met = job.killed(stage, chance)
        if met is None:
            return  # it was quicker
        report.kills[met] += 1
        advance(1)
    report.runs += 1
    job.run()


@dataclass(frozen=True, slots=True)
class _Job:
    corpus: Path
    pack: Path
    url: str
    shards: Path
    shard_documents: int

    def start(self) -> subprocess.Popen[bytes]:
        command = [
            *(sys.executable, "-c", "from steelyard.cli import main; main()", "index"),
            *(str(self.corpus), "--pack", str(self.pack), "--to", self.url),
            *("--shards", str(self.shards), "--shard-documents", str(self.shard_documents)),
        ]
        return subprocess.Popen(  # noqa: S603  (a list, never a shell)
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def run(self) -> None:
        """To the end."""
        process = self.start()
        _, said = process.communicate(timeout=_RUN_SECONDS)
        if process.returncode:
            text = said.decode(errors="replace").strip()[-500:]
            raise SoakError(f"a job ended with {process.returncode}: {text}")

    def killed(self, stage: str, chance: random.Random) -> str | None:
        """Start it, and kill it in a stage; in which it was. None: it ended before."""
        with contextlib.ExitStack() as held:
            process = self.start()
            held.callback(process.wait)
            held.callback(process.kill)
            begun = self._progress()
            share, ended = chance.random(), time.monotonic() + _RUN_SECONDS
            while process.poll() is None and time.monotonic() < ended:
                if self._reached(stage, begun, share):
                    break
                time.sleep(_POLL)
            time.sleep(chance.uniform(0, 0.15))
            if process.poll() is None:
                process.kill()
                process.wait()
                return self._stage()
            if process.returncode:
                text = (process.stderr.read() if process.stderr else b"").decode(errors="replace")
                raise SoakError(f"a job ended with {process.returncode}: {text.strip()[-500:]}")
            return None

    def _reached(self, stage: str, begun: tuple[int, int, int], share: float) -> bool:
        """Whether a stage went on since the process began; some lines into it, by chance."""
        shards, loaded, steps = self._progress()
        if stage == ENCODE:
            return shards > begun[0] + int(3 * share) or loaded > begun[1] + 3
        if stage == LOAD:
            return loaded > begun[1] + int(4 * share) or steps > begun[2]
        complete = (self.shards / MANIFEST).exists() and loaded >= shards
        return steps > begun[2] or (complete and share < 0.5)

    def _stage(self) -> str:
        shards, loaded, steps = self._progress()
        if steps or (loaded and loaded >= shards and (self.shards / MANIFEST).exists()):
            return SWITCH
        return LOAD if (self.shards / MANIFEST).exists() else ENCODE

    def _progress(self) -> tuple[int, int, int]:
        """Lines of the journals: shards, shards loaded, steps done."""
        shards = _lines(self.shards / JOURNAL)
        sinks = [
            line
            for path in (self.shards / FOLDER).glob("?" * 16 + ".jsonl")
            for line in _lines(path)
        ]
        steps = sum(line.startswith(b'{"step"') for line in sinks)
        loaded = sum(line.startswith(b'{"shard"') for line in sinks)
        return max(0, len(shards) - 1), loaded, steps


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines()
    except FileNotFoundError:
        return []


@dataclass(frozen=True, slots=True)
class _Outcome:
    shards: list[tuple[str, str]]
    ids: list[str]
    dense: DenseVectors
    impacts: SparseVectors
    rankings: dict[str, list[list[str]]]
    scores: dict[str, list[NDArray[np.float64]]]
    generations: int


def _outcome(job: _Job, queries: int) -> _Outcome:
    """What a job has left: shards, documents, and the rankings of both arms."""
    manifest = read_manifest(job.shards)
    if manifest is None:
        raise SoakError(f"{job.shards} has no manifest although the job has ended")
    pack = QueryEncoder.load(job.pack)
    engine = open_engine(job.url, must_exist=True, vocabulary=pack.tokenizer)
    try:
        current = engine.resolve()
        if current is None:
            raise SoakError(f"{job.url} has no generation although the job has ended")
        index = engine.open(current)
        encoded = pack.encode_query(synthetic_queries(queries))
        found = {
            "dense": index.dense.search(encoded.dense, _CANDIDATES),
            "sparse": index.sparse.search(encoded.sparse, _CANDIDATES),
        }
        count, exported = index.count(), index.export()
        if count != len(exported):
            raise SoakError(f"{job.url} counts {count} documents and gives {len(exported)}")
        order = sorted(range(count), key=lambda i: exported.documents[i].id)
        return _Outcome(
            [(entry.name, entry.sha256) for entry in manifest.shards],
            [exported.documents[i].id for i in order],
            exported.dense[order],
            exported.sparse.select(order),
            {arm: [one.ids[:_DEEP] for one in answers] for arm, answers in found.items()},
            {arm: [one.scores[:_DEEP] for one in answers] for arm, answers in found.items()},
            len(engine.generations()),
        )
    finally:
        engine.close()


def _compare(expected: _Outcome, found: _Outcome, job: _Job) -> None:
    if found.shards != expected.shards:
        raise SoakError(f"the shards in {job.shards} are not those of an undisturbed job")
    if found.ids != expected.ids:
        lost = len(set(expected.ids) - set(found.ids))
        doubled = len(found.ids) - len(set(found.ids))
        raise SoakError(f"{job.url}: {lost} documents lost, {doubled} doubled")
    if found.generations != 1:
        raise SoakError(f"{job.url} has {found.generations} generations, 1 was published")
    same = np.allclose(found.dense, expected.dense, atol=1e-5)
    same = same and np.array_equal(found.impacts.indptr, expected.impacts.indptr)
    same = same and np.array_equal(found.impacts.ids, expected.impacts.ids)
    if not same or not np.array_equal(found.impacts.weights, expected.impacts.weights):
        raise SoakError(f"{job.url} holds other vectors than an undisturbed job's index")
    for arm, rankings in expected.rankings.items():
        _compare_arm(arm, rankings, found.rankings[arm], expected.scores[arm], found.scores[arm])


def _compare_arm(
    arm: str,
    rankings: Sequence[Sequence[str]],
    found: Sequence[Sequence[str]],
    scores: Sequence[NDArray[np.float64]],
    found_scores: Sequence[NDArray[np.float64]],
) -> None:
    """Equal scores rank by rank, and equal documents but for ties at the end of a list."""
    for query, (ours, theirs) in enumerate(zip(rankings, found, strict=True)):
        same = np.allclose(scores[query], found_scores[query], atol=1e-5)
        tied = {i for i, s in zip(ours, scores[query], strict=True) if s == scores[query][-1]}
        if not same or not (set(ours) - set(theirs)) <= tied:
            raise SoakError(f"query {query} ranks otherwise in the {arm} arm")
