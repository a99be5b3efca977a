"""Variants of the recipe on one corpus: quality, spread over seeds, time, and the estimates."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scipy.sparse import csr_matrix

from steelyard.encoders.distillation.recipe import distill
from steelyard.encoders.documents.batching import encode_in_batches
from steelyard.encoders.query.tables import LookupTable
from steelyard.errors import InputError
from steelyard.eval.collection import JudgedQueries
from steelyard.eval.measures import measure
from steelyard.eval.runs import make_run
from steelyard.eval.study.remembering import RememberingTeacher
from steelyard.eval.study.variants import Variant
from steelyard.indexer.distillation_job import (
    DistillationJob,
    EncodedCorpus,
    encode_for_distillation,
    sample,
)
from steelyard.indexer.loading.load import exact_index
from steelyard.indexer.reading.corpus import Corpus
from steelyard.plugin.engine import Candidates
from steelyard.plugin.fusion import Fusion, fuse
from steelyard.progress import Progress
from steelyard.types import DenseVectors, SparseVectors

CANDIDATES = 1000


@dataclass(frozen=True, slots=True)
class Quality:
    """nDCG@10 of a dense query encoder alone, and fused with BM25 (min-max 0.7 / 0.3)."""

    dense: float
    fused: float


@dataclass(frozen=True, slots=True)
class StudyRun:
    """One table.

    Attributes:
        variant, seed: what was learned.
        quality: of it.
        encode_seconds: processor seconds, of all threads, of the teacher over this table's
            pseudo-queries, words and vocabulary, as measured when they were first encoded.
        learn_seconds: likewise, of the rest: drawing, training, the estimate.
        pseudo_queries: taught.
        held_out: the estimate.
    """

    variant: str
    seed: int
    quality: Quality
    encode_seconds: float
    learn_seconds: float
    pseudo_queries: int
    held_out: dict[str, Any]


class Study:
    """A corpus that is encoded once, and the queries that every table is measured on.

    Args:
        corpus: to learn on and search.
        judged: queries to choose by, not those to report.
        job: model, prompts and BM25; its settings are replaced by a variant's.
        memory: folder of what the teacher has encoded already; see ``RememberingTeacher``.
        shards: folder of the encoded documents; None is the cache.
        progress: shows the stages.
    """

    def __init__(
        self,
        corpus: Corpus,
        judged: JudgedQueries,
        job: DistillationJob,
        memory: Path,
        shards: Path | None,
        progress: Progress,
    ) -> None:
        self._job, self._judged, self._progress = job, judged, progress
        encoded = encode_for_distillation(corpus, job, progress, shards=shards)
        self._encoded: EncodedCorpus = encoded
        self._teacher = RememberingTeacher(encoded.teacher, memory)
        self._documents, self._vectors = sample(encoded, job)
        self._index = exact_index(encoded.manifest, encoded.folder, encoded.metadata)
        texts = [query.text for query in judged.queries]
        self._tokens = encoded.tokens.encode(texts)
        lengths = self._teacher.token_lengths(texts)
        vectors = encode_in_batches(texts, lengths, self._teacher.encode_query, self._teacher.dims)
        self._teacher.save()
        self._bm25 = self._search_bm25()
        self.full = self._measure(vectors)
        self.bm25 = self._ndcg("bm25", self._bm25)

    def run(self, variants: Sequence[Variant], seeds: Sequence[int]) -> Iterator[StudyRun]:
        """Learn and measure each variant with each seed, pseudo-queries drawn anew for a seed.

        Raises:
            InputError: no seed.
        """
        if not seeds:
            raise InputError("no seed to run", "give --seeds 0,1")
        for variant in variants:
            for seed in seeds:
                self._progress.say(f"{variant.name}, seed {seed}")
                yield self._run(variant, seed)

    def _run(self, variant: Variant, seed: int) -> StudyRun:
        teacher = self._teacher
        asked, spent, started = teacher.asked, teacher.spent, time.process_time()
        table = distill(
            self._documents,
            self._vectors,
            teacher,
            self._encoded.tokens,
            self._encoded.tokenizer.rows,
            replace(variant.settings, seed=seed),
            self._progress,
        )
        seconds = time.process_time() - started
        teacher.save()
        return StudyRun(
            variant.name,
            seed,
            self._measure(LookupTable(table.rows).encode(self._tokens)),
            teacher.asked - asked,
            seconds - (teacher.spent - spent),
            table.recipe["pseudo_queries"],
            table.held_out.to_dict(),
        )

    def _search_bm25(self) -> list[Candidates]:
        tokens, idf = self._tokens, self._encoded.statistics.idf()
        shape = (len(self._judged.queries), self._encoded.tokenizer.rows)
        counts = csr_matrix((idf[tokens.ids], tokens.ids, tokens.indptr), shape=shape)
        return self._index.sparse.search(SparseVectors.from_csr(counts), CANDIDATES)

    def _measure(self, vectors: DenseVectors) -> Quality:
        dense = self._index.dense.search(vectors, CANDIDATES)
        joined = [
            fuse((d, s), Fusion(), CANDIDATES) for d, s in zip(dense, self._bm25, strict=True)
        ]
        return Quality(self._ndcg("dense", dense), self._ndcg("fused", joined))

    def _ndcg(self, name: str, rankings: Sequence[Candidates]) -> float:
        run = make_run(name, self._judged.queries, rankings)
        ids = [query.id for query in self._judged.queries]
        return measure(run, self._judged.qrels, ids).means["ndcg@10"]
