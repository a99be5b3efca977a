"""What our layer costs on top of an engine, and what approximate neighbours lose.

Loading is compared with the bare client, hybrid search with one arm: ratios of medians from one
run, the contenders taking turns.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, cast

import numpy as np

from steelyard.errors import EngineError, InputError
from steelyard.eval.bench.bare_clients import bare_sender
from steelyard.eval.bench.take_turns import take_turns
from steelyard.plugin.abilities import SearchesBoth
from steelyard.plugin.async_searcher import AsyncSearcher
from steelyard.plugin.engine import DENSE, SPARSE, Engine, Generation
from steelyard.plugin.ranking import TOGETHER
from steelyard.plugin.searcher import Searcher
from steelyard.plugin.urls import open_engine
from steelyard.plugin.vocabulary import Vocabulary
from steelyard.progress import Progress
from steelyard.types import DenseVectors, Document, EncodedDocuments, EncodedQueries, SparseVectors

BATCH = 2048
"""Documents of one upsert, as ``steelyard index`` sends them."""


def bench_bulk(
    url: str,
    template: Generation,
    batches: Sequence[EncodedDocuments],
    vocabulary: Vocabulary,
    progress: Progress,
    *,
    rounds: int = 3,
) -> dict[str, Any]:
    """Documents a second into an engine: by our layer, and by the bare client's own bulk call.

    The bare client gets the same requests, made before the clock starts; ours makes them while
    it sends.

    Args:
        url: one engine, not a pair.
        template: generations like this one are made and dropped; the alias is not touched.
        batches: what is loaded, each time.
        vocabulary: of the pack.
        progress: shows the rounds.
        rounds: of both; the first of each is not counted.
    """
    documents = sum(map(len, batches))
    engine = open_engine(url, vocabulary=vocabulary)
    seconds: dict[str, list[float]] = {"bare": [], "ours": []}
    try:
        arms = arms_held(engine, template)
        with progress.stage("load", 2 * (rounds + 1)) as advance:
            for turn in range(rounds + 1):
                for number, contender in enumerate(seconds):
                    generation = replace(
                        template,
                        name=f"{engine.alias}_20200101{turn:04d}{number:02d}_00000000",
                        arms=arms,
                        arms_elsewhere=tuple({DENSE, SPARSE} - set(arms)),
                    )
                    _create(engine, generation)
                    try:
                        send = (
                            _ours(engine, generation, batches)
                            if contender == "ours"
                            else bare_sender(url, engine, generation, batches, vocabulary)
                        )
                        started = time.perf_counter()
                        send()
                        if turn:
                            seconds[contender].append(time.perf_counter() - started)
                    finally:
                        engine.drop(generation)
                    advance(1)
    finally:
        engine.close()
    ours, bare = (statistics.median(seconds[name]) for name in ("ours", "bare"))
    return {
        "engine": url.split(":", 1)[0],
        "arms": list(arms),
        "documents": documents,
        "ours_per_second": round(documents / ours, 1),
        "bare_per_second": round(documents / bare, 1),
        "ratio": round(bare / ours, 3),
    }


def arms_held(engine: Engine, template: Generation) -> tuple[str, ...]:
    """Both arms; the dense one where the engine has no sparse vectors."""
    probe = replace(template, name=f"{engine.alias}_20200101000099_00000000")
    for arms in ((DENSE, SPARSE), (DENSE,)):
        elsewhere = tuple({DENSE, SPARSE} - set(arms))
        try:
            generation = replace(probe, arms=arms, arms_elsewhere=elsewhere)
            _create(engine, generation)
        except EngineError as error:
            if "no sparse vectors" not in error.message:
                raise
            continue
        engine.drop(generation)
        return arms
    raise AssertionError("one of the two was returned or raised")


def _create(engine: Engine, generation: Generation) -> None:
    """An empty generation; one that a killed run has left is removed first."""
    if any(found.name == generation.name for found in engine.generations()):
        engine.drop(generation)
    engine.create(generation)


def _ours(
    engine: Engine, generation: Generation, batches: Sequence[EncodedDocuments]
) -> Callable[[], None]:
    def send() -> None:
        for batch in batches:
            engine.upsert(generation, batch)

    return send


def bench_search(
    searcher: Searcher,
    texts: Sequence[str],
    *,
    candidates: int,
    feedback: int = 3,
    k: int = 10,
) -> dict[str, Any]:
    """Milliseconds a query, in the median: arms alone, hybrid, with documents, with feedback.

    ``arms_at_once`` asks both arms of a query that is encoded already, and joins nothing: what is
    between it and the slower arm is the engines' share of the processor, what is between it and
    ``hybrid`` is ours.

    Args:
        searcher: over an index with both arms.
        texts: queries; each contender answers each of them once, query by query.
        candidates: of each arm; the searcher's own setting must be the same.
        feedback: documents that refine a query.
        k: hits.
    """
    index, queries = searcher.index(), searcher.queries
    arms = [arm for arm in (DENSE, SPARSE) if arm in index.arms]
    encoded = {text: queries.encode_query(text) for text in texts}

    def one_arm(arm: str) -> Callable[[str], object]:
        search = getattr(index, arm).search
        vectors: Callable[[EncodedQueries], DenseVectors | SparseVectors] = (
            (lambda e: e.dense) if arm == DENSE else (lambda e: e.sparse)
        )
        return lambda text: search(vectors(encoded[text]), candidates)

    threads = ThreadPoolExecutor(len(arms))
    together = candidates <= TOGETHER and isinstance(index, SearchesBoth)

    def arms_at_once(text: str) -> object:
        if together:
            one = encoded[text]
            return cast(SearchesBoth, index).search_both(one.dense, one.sparse, candidates)
        return [found.result() for found in [threads.submit(one_arm(a), text) for a in arms]]

    contenders: dict[str, Callable[[str], object]] = {
        "encode": queries.encode_query,
        **{arm: one_arm(arm) for arm in arms},
        "arms_at_once": arms_at_once,
        "hybrid": lambda text: searcher.search(text, k, documents=False),
        "hybrid_documents": lambda text: searcher.search(text, k),
        "hybrid_feedback": lambda text: searcher.search(text, k, feedback=feedback),
    }
    with threads:
        medians = _by_turns(contenders, texts)
    slower = max(medians[arm] for arm in arms)
    return {
        "candidates": candidates,
        "k": k,
        "feedback": feedback,
        "queries": len(texts),
        "milliseconds": {name: round(seconds * 1e3, 3) for name, seconds in medians.items()},
        "hybrid_over_slower_arm": round(medians["hybrid"] / slower, 3),
        "arms_at_once_over_slower_arm": round(medians["arms_at_once"] / slower, 3),
        "hybrid_over_arms_at_once": round(medians["hybrid"] / medians["arms_at_once"], 3),
        "hybrid_documents_over_slower_arm": round(medians["hybrid_documents"] / slower, 3),
        "feedback_over_hybrid": round(medians["hybrid_feedback"] / medians["hybrid_documents"], 3),
        "encoder_share": round(medians["encode"] / medians["hybrid_documents"], 4),
    }


def bench_concurrent(
    searcher: Searcher, open_async: Callable[[], Any], texts: Sequence[str], *, at_once: int = 16
) -> dict[str, Any]:
    """Queries a second when many are asked at once: by threads, and by tasks.

    Args:
        searcher: the synchronous one.
        open_async: makes the asynchronous one, inside the loop; awaited.
        texts: queries.
        at_once: threads, and tasks.
    """
    with ThreadPoolExecutor(at_once) as threads:

        def by_threads() -> object:
            return list(threads.map(searcher.search, texts))

        (synchronous,) = take_turns([by_threads], 2)

    async def by_tasks() -> float:
        opened: AsyncSearcher = await open_async()
        async with opened as tasks:
            limit = asyncio.Semaphore(at_once)

            async def one(text: str) -> None:
                async with limit:
                    await tasks.search(text)

            await asyncio.gather(*map(one, texts))
            started = time.perf_counter()
            await asyncio.gather(*map(one, texts))
            return time.perf_counter() - started

    asynchronous = asyncio.run(by_tasks())
    return {
        "at_once": at_once,
        "threads_qps": round(len(texts) / synchronous, 1),
        "tasks_qps": round(len(texts) / asynchronous, 1),
    }


def _by_turns(
    contenders: dict[str, Callable[[str], object]], texts: Sequence[str]
) -> dict[str, float]:
    """Median seconds of each; every query is asked of all before the next."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for name, ask in contenders.items():  # connections are opened, caches are warm
        del name
        for text in texts[:10]:
            ask(text)
    for text in texts:
        for name, ask in contenders.items():
            started = time.perf_counter()
            ask(text)
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def bench_recall(
    url: str,
    template: Generation,
    vectors: DenseVectors,
    queries: DenseVectors,
    progress: Progress,
    *,
    at: int = 100,
    candidates: Sequence[int] = (100, 1000),
) -> dict[str, Any]:
    """Recall@``at`` of an engine's neighbours against exact ones.

    Args:
        url: the engine.
        template: a generation like this one is made, dense arm only, and dropped.
        vectors: of the documents ``[n, d]``.
        queries: ``[m, d]``.
        progress: shows the load and the searches.
        at: how many neighbours are compared.
        candidates: how many are asked for.

    Returns:
        Recall and median milliseconds of a single query, by number of candidates.
    """
    if min(candidates) < at:
        raise InputError(f"{min(candidates)} candidates for recall@{at}", "ask for more")
    exact = [set(np.argpartition(-(vectors @ query), at)[:at].tolist()) for query in queries]
    engine = open_engine(url)
    generation = replace(
        template,
        name=f"{engine.alias}_20200101000000_00000000",
        dims=vectors.shape[1],
        arms=(DENSE,),
        arms_elsewhere=(SPARSE,),
        fields={},
    )
    result: dict[str, Any] = {
        "engine": url.split(":", 1)[0],
        "vectors": len(vectors),
        "dims": int(vectors.shape[1]),
        "queries": len(queries),
        "at": at,
    }
    with ExitStack() as stack:
        stack.callback(engine.close)
        _create(engine, generation)
        stack.callback(engine.drop, generation)
        with progress.stage("load", len(vectors)) as advance:
            for batch in _numbered(vectors, generation.vocabulary_size):
                engine.upsert(generation, batch)
                advance(len(batch))
        with progress.stage("build the index"):
            engine.seal(generation)
        arm = engine.open(generation).dense
        for count in candidates:
            found, seconds = [], []
            arm.search(queries[:1], count)
            for query in queries:
                started = time.perf_counter()
                (answer,) = arm.search(query[None, :], count)
                seconds.append(time.perf_counter() - started)
                found.append({int(i) for i in answer.ids[:at]})
            shares = [len(f & e) / at for f, e in zip(found, exact, strict=True)]
            result[f"recall@{at}_of_{count}"] = round(float(np.mean(shares)), 4)
            result[f"milliseconds_{count}"] = round(statistics.median(seconds) * 1e3, 2)
    return result


def _numbered(vectors: DenseVectors, vocabulary_size: int) -> Iterator[EncodedDocuments]:
    """Documents without texts or terms, called by their row."""
    for first in range(0, len(vectors), BATCH):
        rows = range(first, min(first + BATCH, len(vectors)))
        documents = [Document(str(row), ".") for row in rows]
        none = (np.zeros(0, np.int32), np.zeros(0, np.float32))
        sparse = SparseVectors.from_rows([none] * len(rows), vocabulary_size)
        yield EncodedDocuments(documents, vectors[rows.start : rows.stop], sparse)
