"""How fast a query is encoded, against its own tokenizer and against the full model.

Ratios of medians from one run, the contenders taking turns, so that a busy machine slows all of
them alike.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from steelyard.encoders.documents.protocol import FullModel
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.eval.take_turns import take_turns

BATCH_QUERIES = 16384
SINGLE_QUERIES = 2000
FULL_QUERIES = 512
FULL_BATCH = 256
_ROUNDS = 7


@dataclass(frozen=True, slots=True)
class QueryBenchmark:
    """Queries a second, microseconds a single query, and their ratios.

    Attributes:
        tokenizer_qps: the tokenizer alone, ids taken out, in one batch.
        lookup_qps: dense vectors by look-up. ``both_arms_qps``: dense and sparse.
        lookup_share, both_arms_share: of the tokenizer's speed, 1 = as fast.
        single_tokenizer_us, single_query_us: one query at a time; the second is both arms.
        single_ratio: single query over tokenising it.
        full_qps: the full model at batch 256; None when it was not asked for.
        speed_up: look-up over full model, both at batch 256.
        import_seconds: importing ``QueryEncoder`` in a new process.
    """

    queries: int
    tokenizer_qps: float
    lookup_qps: float
    both_arms_qps: float
    lookup_share: float
    both_arms_share: float
    single_tokenizer_us: float
    single_query_us: float
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
    encoder: QueryEncoder, texts: Sequence[str], model: FullModel | None = None
) -> QueryBenchmark:
    """Time query encoding on these texts, repeated to 16,384.

    Args:
        encoder: the pack.
        texts: real queries.
        model: the full model; None leaves it out.
    """
    many = [texts[i % len(texts)] for i in range(BATCH_QUERIES)]
    tokenizer = encoder.tokenizer

    def tokenise() -> None:
        for encoding in tokenizer.encode_batch_fast(many, add_special_tokens=False):
            _ = encoding.ids

    tokens, lookup, both = take_turns(
        [tokenise, lambda: encoder.encode_dense(many), lambda: encoder.encode_query(many)],
        _ROUNDS,
    )
    singles = many[:SINGLE_QUERIES]

    def tokenise_one_by_one() -> None:
        for text in singles:
            _ = tokenizer.encode(text, add_special_tokens=False).ids

    def encode_one_by_one() -> None:
        for text in singles:
            encoder.encode_query(text)

    one_token, one_query = take_turns([tokenise_one_by_one, encode_one_by_one], _ROUNDS)
    full_qps = at_256 = None
    if model is not None:
        some = many[:FULL_QUERIES]
        batches = [some[i : i + FULL_BATCH] for i in range(0, len(some), FULL_BATCH)]
        full, light = take_turns(
            [
                lambda: [model.encode_query(batch) for batch in batches],
                lambda: [encoder.encode_dense(batch) for batch in batches],
            ],
            rounds=3,
        )
        full_qps, at_256 = len(some) / full, len(some) / light
    return QueryBenchmark(
        queries=len(many),
        tokenizer_qps=len(many) / tokens,
        lookup_qps=len(many) / lookup,
        both_arms_qps=len(many) / both,
        lookup_share=tokens / lookup,
        both_arms_share=tokens / both,
        single_tokenizer_us=one_token / len(singles) * 1e6,
        single_query_us=one_query / len(singles) * 1e6,
        single_ratio=one_query / one_token,
        full_qps=full_qps,
        lookup_qps_at_256=at_256,
        speed_up=at_256 / full_qps if at_256 and full_qps else None,
        import_seconds=_import_seconds(),
    )


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
