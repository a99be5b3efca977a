"""How fast a query is encoded, against its own tokenizer and against the full model.

Medians of rounds in which the contenders take turns, so that a busy machine slows all of them
alike. Words that the fast way remembers come from other texts: before every round it is set back
to them, so that it has never seen the queries that are timed.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from steelyard.encoders.documents.protocol import FullModel
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import SteelyardError
from steelyard.eval.bench.take_turns import take_turns

BATCH = 1024
SINGLE_QUERIES = 1000
FULL_QUERIES = 512
FULL_BATCH = 256
_ROUNDS = 15
_AGAIN = 2 * BATCH
_PARALLEL = "TOKENIZERS_PARALLELISM"


@dataclass(frozen=True, slots=True)
class QueryBenchmark:
    """Microseconds a query in batches of 1,024 and alone, and ratios.

    Attributes:
        queries: different ones, each timed once a round.
        warm_texts: other texts, encoded before; 0: no fast way.
        hit_rate: share of the queries' pieces known from those texts; ``fast_share``: share of
            the queries that the tokenizer need not be asked for.
        threads: of the tokenizer by default.
        tokenizer_us: the bare tokenizer, ids taken out; ``tokenizer_one_thread_us``: by one.
        tokens_us: tokenising by the fast way. ``dense_us``: dense vectors by look-up.
            ``both_arms_us``: dense and sparse. ``known_us``: the same with every piece known, as
            when queries come again; ``cold_us``: with none known.
        dense_times, both_arms_times, known_times, cold_times: how often as fast as the bare
            tokenizer.
        single_tokenizer_us, single_tokens_us, single_query_us: one query at a time, the last is
            both arms.
        single_tokens_ratio, single_ratio: over tokenising it with the tokenizer.
        full_qps: the full model at batch 256; None when it was not asked for.
        speed_up: look-up over full model, both at batch 256.
        import_seconds: importing ``QueryEncoder`` in a new process.
    """

    queries: int
    warm_texts: int
    hit_rate: float
    fast_share: float
    threads: int
    tokenizer_us: float
    tokenizer_one_thread_us: float
    tokens_us: float
    dense_us: float
    both_arms_us: float
    known_us: float
    cold_us: float
    dense_times: float
    both_arms_times: float
    known_times: float
    cold_times: float
    single_tokenizer_us: float
    single_tokens_us: float
    single_query_us: float
    single_tokens_ratio: float
    single_ratio: float
    full_qps: float | None
    lookup_qps_at_256: float | None
    speed_up: float | None
    import_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON, four significant digits."""
        return {
            key: float(f"{value:.4g}") if isinstance(value, float) else value
            for key, value in asdict(self).items()
        }


def bench_query(
    encoder: QueryEncoder,
    queries: Sequence[str],
    warm: Sequence[str],
    model: FullModel | None = None,
) -> QueryBenchmark:
    """Time query encoding.

    Args:
        encoder: the pack.
        queries: real ones; each is timed once a round. Those that are left over behind whole
            batches are not.
        warm: other texts, such as passages, whose words are known when the timing begins.
        model: the full model; None leaves it out.

    Raises:
        SteelyardError: the fast way gave other ids than the tokenizer.
    """
    seen = set(warm)
    texts = [text for text in dict.fromkeys(queries) if text not in seen]
    # A small batch behind the others is another case.
    texts = texts[: len(texts) // BATCH * BATCH or len(texts)]
    if encoder.words is not None:
        encoder.words.forget()
    for batch in _batches(warm, BATCH):
        encoder.encode_query(batch)
    hit_rate, fast_share = _check(encoder, texts)
    tokenizer = _own_tokenizer(encoder, warm)

    def tokenise(batches: Sequence[Any]) -> None:
        for batch in batches:
            for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
                _ = encoding.ids

    def tokenise_by_one_thread(batches: Sequence[Any]) -> None:
        with _one_thread():
            tokenise(batches)

    batches = list(_batches(texts, BATCH))
    both_arms = _each(lambda batch: encoder.encode_query(batch))

    def forget() -> None:
        if encoder.words is not None:
            encoder.words.forget()

    many = _in_turns(
        encoder,
        [
            (tokenise, _as_it_is),
            (tokenise_by_one_thread, _as_it_is),
            (_each(lambda batch: encoder.dense_tokens.encode(batch)), _as_it_is),
            (_each(lambda batch: encoder.encode_dense(batch)), _as_it_is),
            (both_arms, _as_it_is),
            (both_arms, lambda: both_arms(batches)),
            (both_arms, forget),
        ],
        batches,
        list(_batches(warm[-_AGAIN:], BATCH)),
    )
    bare, one_thread, tokens, dense, both, known_us, cold_us = (
        seconds / len(texts) * 1e6 for seconds in many
    )
    some = texts[:SINGLE_QUERIES]
    singles = _in_turns(
        encoder,
        [
            (_each(lambda text: tokenizer.encode(text, add_special_tokens=False).ids), _as_it_is),
            (_each(lambda text: encoder.dense_tokens.encode_one(text)), _as_it_is),
            (_each(lambda text: encoder.encode_query(text)), _as_it_is),
        ],
        some,
        warm[-_AGAIN:],
    )
    single = [seconds / len(some) * 1e6 for seconds in singles]
    full_qps, at_256 = _against(encoder, texts, model)
    return QueryBenchmark(
        queries=len(texts),
        warm_texts=len(warm) if encoder.words is not None else 0,
        hit_rate=hit_rate,
        fast_share=fast_share,
        threads=_threads(),
        tokenizer_us=bare,
        tokenizer_one_thread_us=one_thread,
        tokens_us=tokens,
        dense_us=dense,
        both_arms_us=both,
        known_us=known_us,
        cold_us=cold_us,
        dense_times=bare / dense,
        both_arms_times=bare / both,
        known_times=bare / known_us,
        cold_times=bare / cold_us,
        single_tokenizer_us=single[0],
        single_tokens_us=single[1],
        single_query_us=single[2],
        single_tokens_ratio=single[1] / single[0],
        single_ratio=single[2] / single[0],
        full_qps=full_qps,
        lookup_qps_at_256=at_256,
        speed_up=at_256 / full_qps if at_256 and full_qps else None,
        import_seconds=_import_seconds(),
    )


def _own_tokenizer(encoder: QueryEncoder, warm: Sequence[str]) -> Tokenizer:
    """The pack's, for itself, and it too has read the other texts.

    With BPE each of its threads remembers the words that it saw first, until it has no more room.
    Shared with the encoder, it would know more of the timed queries the fewer texts the encoder
    asked it for.
    """
    tokenizer = Tokenizer.from_str(encoder.tokenizer_json)
    for threads in (nullcontext, _one_thread):
        with threads():
            for batch in _batches(warm, BATCH):
                tokenizer.encode_batch_fast(batch, add_special_tokens=False)
    return tokenizer


def _batches(texts: Sequence[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(texts), size):
        yield list(texts[start : start + size])


def _each(encode: Callable[[Any], object]) -> Callable[[Sequence[Any]], None]:
    def run(inputs: Sequence[Any]) -> None:
        for one in inputs:
            encode(one)

    return run


def _as_it_is() -> None:
    """Words are known from the warming texts alone."""


def _in_turns(
    encoder: QueryEncoder,
    turns: Sequence[tuple[Callable[[Sequence[Any]], object], Callable[[], object]]],
    timed: Sequence[Any],
    before: Sequence[Any],
) -> list[float]:
    """Median seconds of each contender; what stands beside it is done before the clock starts.

    What was known is set back each time, and some of it encoded again, not timed: copying it has
    just emptied the processor's caches, which a service never does.
    """
    words = encoder.words
    known = words.known() if words is not None else None
    seconds: list[list[float]] = [[] for _ in turns]
    for turn in range(_ROUNDS + 1):
        for which, (contender, prepare) in enumerate(turns):
            contender(before)
            prepare()
            started = time.perf_counter()
            contender(timed)
            if turn:
                seconds[which].append(time.perf_counter() - started)
            if words is not None and known is not None:
                words.remember(known)
    return list(map(statistics.median, seconds))


def _check(encoder: QueryEncoder, texts: list[str]) -> tuple[float, float]:
    """Ids equal the tokenizer's for both arms; share of known pieces and of fast queries."""
    words = encoder.words
    hit_rate = fast_share = 0.0
    known = words.known() if words is not None else None
    if words is not None:
        hit_rate = words.hit_rate(texts)
        fast_share = sum(words.encode_one(text) is not None for text in texts) / len(texts)
    for arm in (encoder.dense_tokens, encoder.sparse_tokens):
        found = arm.encode(texts)
        exact = arm.without_words().encode(texts)
        if not (
            np.array_equal(found.ids, exact.ids) and np.array_equal(found.indptr, exact.indptr)
        ):
            raise SteelyardError(
                "the fast way gave other token ids than the tokenizer",
                "please report it, with the pack's tokenizer.json",
            )
    if words is not None and known is not None:
        words.remember(known)  # what the check taught is not known when the timing begins
    return hit_rate, fast_share


def _against(
    encoder: QueryEncoder, texts: list[str], model: FullModel | None
) -> tuple[float | None, float | None]:
    """Queries a second of the full model and of the look-up, both in batches of 256."""
    if model is None:
        return None, None
    some = texts[:FULL_QUERIES]
    batches = list(_batches(some, FULL_BATCH))
    full, light = take_turns(
        [
            lambda: [model.encode_query(batch) for batch in batches],
            lambda: [encoder.encode_dense(batch) for batch in batches],
        ],
        rounds=3,
    )
    return len(some) / full, len(some) / light


@contextmanager
def _one_thread() -> Iterator[None]:
    before = os.environ.get(_PARALLEL)
    os.environ[_PARALLEL] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_PARALLEL]
        else:
            os.environ[_PARALLEL] = before


def _threads() -> int:
    """That the tokenizer takes for a batch when it is not told."""
    if os.environ.get(_PARALLEL, "").lower() in {"off", "false", "f", "no", "n", "0"}:
        return 1
    told = os.environ.get("RAYON_NUM_THREADS", "")
    return int(told) if told.isdigit() and int(told) else len(os.sched_getaffinity(0))


def _import_seconds() -> float:
    """Median of three new processes."""
    code = (
        "import time; t = time.perf_counter(); from steelyard import QueryEncoder; "
        "print(time.perf_counter() - t)"
    )
    runs = [
        subprocess.run(  # noqa: S603
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(3)
    ]
    return statistics.median(map(float, runs))
