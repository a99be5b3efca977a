"""Training the recipe and its variants alike, and measuring each on judged queries."""

from __future__ import annotations

import gc
import hashlib
import json
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from steelyard.encoders.causal.source import locate_causal_model
from steelyard.encoders.causal.tokens import CausalTokenizer
from steelyard.encoders.causal.tower import DEFAULT_MAX_TERMS, CausalEncoder
from steelyard.errors import InputError
from steelyard.eval.ablations.results import AblationRun, SystemFigures
from steelyard.eval.ablations.variants import FULL, MRL, Variant
from steelyard.eval.sweeps.sizes import default_dims
from steelyard.eval.tower_quality import TowerJudge
from steelyard.eval.tower_vectors import (
    JudgedCollection,
    ReadingSettings,
    TowerVectors,
    read_with,
)
from steelyard.progress import Progress
from steelyard.training.batches import Batches
from steelyard.training.data.triples import TrainingExample
from steelyard.training.lora import add_adapter
from steelyard.training.settings import TrainingSettings
from steelyard.training.short_run import ShortRun, train_in_memory
from steelyard.training.towers import Towers
from steelyard.training.trainer import towers_of
from steelyard.training.variants.one_layer import OneLayerTowers

TERMS = (32, 64, 128, DEFAULT_MAX_TERMS)
"""Heaviest terms a document, of the sizes that are measured."""


@dataclass(frozen=True, slots=True)
class AblationJob:
    """What is trained alike.

    Attributes:
        model: base model; see ``locate_causal_model``.
        training: of the whole recipe.
        reading: how the judged collection is read.
        device: see ``open_causal_model``.
    """

    model: str
    training: TrainingSettings
    reading: ReadingSettings
    device: str | None = None


def described(
    job: AblationJob, collection: JudgedCollection, data: dict[str, str]
) -> dict[str, Any]:
    """Everything that the figures depend on, seeds and variants aside.

    Args:
        job, collection: of the study.
        data: name and hash of the examples.
    """
    return {
        "model": job.model,
        "weights": locate_causal_model(job.model).weights_hash(),
        "collection": collection.judged.name,
        "documents": len(collection.documents),
        "queries": [query.id for query in collection.judged.queries],
        "texts": _texts_sha256(collection),
        "data": data,
        "training": {**job.training.to_json(), "seed": None},
        "reading": asdict(job.reading),
    }


def _texts_sha256(collection: JudgedCollection) -> str:
    """Of documents, queries and judgements."""
    judged = collection.judged
    texts = [
        [[document.id, document.content] for document in collection.documents],
        [[query.id, query.text, judged.qrels.get(query.id)] for query in judged.queries],
    ]
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()


class AblationStudy:
    """A judged collection, and examples that every variant is trained on.

    Args:
        job: see there.
        collection: what every tower is measured on.
        examples: to train on.
        progress: shows the stages.
    """

    def __init__(
        self,
        job: AblationJob,
        collection: JudgedCollection,
        examples: Sequence[TrainingExample],
        progress: Progress,
    ) -> None:
        self._job, self._collection = job, collection
        self._examples, self._progress = examples, progress
        self._judge: TowerJudge | None = None

    def run(
        self,
        variants: Sequence[Variant],
        seeds: Sequence[int],
        finished: Collection[tuple[str, int]] = (),
    ) -> Iterator[AblationRun]:
        """Train and measure each variant with each seed; what is not trained is measured once.

        Args:
            variants: which.
            seeds: of the adapter, the batches and dropout.
            finished: variants and seeds that are passed over.

        Raises:
            InputError: no seed, or a setting that a variant cannot be trained with.
        """
        if not seeds:
            raise InputError("no seed to run", "give --seeds 0,1")
        first = self._job.training.adapter.first_layer
        for variant in variants:
            if variant.kind is OneLayerTowers and first > 0:
                raise InputError(
                    f"{variant.name} reads light queries through layer 0, the adapter starts at "
                    f"layer {first}: nothing of it would learn",
                    f"take --first-layer 0, or leave {variant.name} out of --variants",
                )
        for seed in seeds:
            for variant in variants:
                once = not variant.trained and seed != seeds[0]
                if not once and (variant.name, seed) not in finished:
                    self._progress.say(f"{variant.name}, seed {seed}: {variant.about}")
                    yield self._run(variant, seed)
                    gc.collect()

    def _run(self, variant: Variant, seed: int) -> AblationRun:
        with self._progress.stage("open the model"):
            encoder = CausalEncoder(
                self._job.model,
                lowercase=self._job.training.lowercase,
                precision=self._job.training.precision,
                device=self._job.device,
            )
        dims = encoder.model.dims
        settings = settings_of(variant, self._job.training, seed, dims)
        towers = variant.towers(towers_of(encoder, settings))
        started, run = time.perf_counter(), None
        if variant.trained:
            run = self._train(variant, towers, encoder.tokens, settings)
        seconds = time.perf_counter() - started
        vectors = read_with(
            towers, encoder.tokens, self._collection, self._job.reading, self._progress
        )
        return self._measured(variant, seed, run, seconds, vectors, encoder.tokens)

    def _train(
        self, variant: Variant, towers: Towers, tokens: CausalTokenizer, settings: TrainingSettings
    ) -> ShortRun:
        batch = settings.batch
        batches = Batches(self._examples, batch.queries, batch.negatives, settings.seed)
        add_adapter(towers.backbone, settings.adapter, settings.seed)
        variant.prepare(towers.backbone)
        with self._progress.stage("train", settings.optimiser.steps) as advance:
            return train_in_memory(towers, tokens, batches, settings, advance)

    def _measured(
        self,
        variant: Variant,
        seed: int,
        run: ShortRun | None,
        seconds: float,
        vectors: TowerVectors,
        tokens: CausalTokenizer,
    ) -> AblationRun:
        with self._progress.stage("measure"):
            if self._judge is None:
                self._judge = TowerJudge(self._collection, tokens)
            graded = self._judge.systems(vectors)
            most = self._job.reading.max_terms
            terms = [count for count in TERMS if count < most] + [most]
            sized = variant.name in (FULL, MRL)
            sizes = (
                self._judge.sizes(vectors, default_dims(vectors.dense.shape[1]), terms)
                if sized
                else []
            )
        return AblationRun(
            variant=variant.name,
            seed=seed,
            steps=len(run.losses) if run else 0,
            seconds=round(seconds, 1),
            parameters=run.parameters if run else 0,
            losses=[round(loss, 4) for loss in run.losses] if run else [],
            terms=round(vectors.terms, 1),
            flops=round(vectors.flops, 4),
            systems={
                name: SystemFigures(
                    one.quality.ndcg10, one.quality.recall100, one.ndcg10.round(6).tolist()
                )
                for name, one in graded.items()
            },
            sizes=[asdict(one) for one in sizes],
        )


def settings_of(
    variant: Variant, whole: TrainingSettings, seed: int, dims: int
) -> TrainingSettings:
    """The recipe's settings with a variant's change.

    Args:
        variant: which.
        whole: of the recipe.
        seed: of the run.
        dims: of the model's vectors.
    """
    changes: dict[str, Any] = dict(variant.loss)
    if variant.mrl:
        changes["mrl_dims"] = default_dims(dims)
    return replace(whole, seed=seed, loss=replace(whole.loss, **changes))
