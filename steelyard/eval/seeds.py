"""How much a distilled pack varies: the same corpus, other seeds, pseudo-queries drawn anew."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from steelyard.encoders.documents.from_pack import open_dense_encoder
from steelyard.encoders.documents.protocol import FullModel
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import InputError
from steelyard.eval.collection import JudgedQueries
from steelyard.eval.evaluate import evaluate
from steelyard.eval.systems import System
from steelyard.indexer.distillation_job import DistillationJob, distill_pack
from steelyard.indexer.loading.load import exact_index
from steelyard.indexer.reading.corpus import Corpus
from steelyard.plugin.fusion import Fusion
from steelyard.progress import Progress

SPREAD_MEASURES = ("ndcg@10", "recall@100")


@dataclass(frozen=True, slots=True)
class SeedRun:
    """One seed's pack: what it measured, and its own held-out estimate."""

    seed: int
    rows: list[dict[str, Any]]
    held_out: dict[str, Any]


def run_seeds(
    corpus: Corpus,
    judged: JudgedQueries,
    job: DistillationJob,
    seeds: Sequence[int],
    systems: Sequence[System],
    shards: Path | None,
    progress: Progress,
    *,
    candidates: int = 1000,
) -> list[SeedRun]:
    """Distil and measure once a seed; documents are encoded once for all.

    Args:
        corpus: to distill on and search.
        judged: its judged queries; choose settings on a train split, report a test split.
        job: the recipe; its seed is replaced.
        seeds: at least one.
        systems: what to measure.
        shards: folder of the encoded documents; None is the cache.
        progress: shows the stages.
        candidates: of each arm.
    """
    if not seeds:
        raise InputError("no seed to run", "give --seeds 0,1,2")
    runs: list[SeedRun] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            progress.say(f"seed {seed}")
            pack = Path(folder) / f"pack-{seed}"
            seeded = replace(job, settings=replace(job.settings, seed=seed))
            made = distill_pack(corpus, seeded, pack, progress, shards=shards)
            queries = QueryEncoder.load(pack)

            def full_model(of: QueryEncoder = queries) -> FullModel:
                return open_dense_encoder(of.metadata, precision=job.precision)

            results = evaluate(
                systems,
                judged,
                queries,
                exact_index(made.manifest, made.shards, made.metadata),
                full_model,
                progress,
                fusion=Fusion(),
                candidates=candidates,
            )
            rows = [result.row() for result in results]
            runs.append(SeedRun(seed, rows, made.metadata.provenance["held_out"]))
    return runs


def spread(runs: Sequence[SeedRun]) -> list[dict[str, Any]]:
    """Mean, standard deviation, least and most of each system over the seeds."""
    summary = []
    for position, row in enumerate(runs[0].rows):
        entry: dict[str, Any] = {"system": row["system"]}
        for measure in SPREAD_MEASURES:
            values = [run.rows[position][measure] for run in runs]
            entry[measure] = {
                "mean": round(statistics.mean(values), 4),
                "deviation": round(statistics.stdev(values), 4) if len(values) > 1 else 0.0,
                "least": min(values),
                "most": max(values),
            }
        summary.append(entry)
    return summary
