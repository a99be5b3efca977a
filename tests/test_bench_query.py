"""The benchmark of query encoding: fair about what the fast way has seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import SteelyardError
from steelyard.eval.bench import query as module
from steelyard.eval.bench.query import bench_query

QUERIES = ["heavy arm", "the light arm", "balance the document", "heavy arm", "a query \u00e9"]


def test_known_words_come_from_the_other_texts(tiny_encoder: QueryEncoder) -> None:
    # So many that they are a batch: a few texts are looked up one by one.
    warm = ["heavy balance", "the arm", "light arm"] * 20
    result = bench_query(tiny_encoder, QUERIES, warm)
    assert result.queries == 4
    # Of "heavy arm", "the light arm", "balance the document", "a query \u00e9" all but four words.
    assert result.hit_rate == pytest.approx(7 / 11)
    assert result.fast_share == 1
    words = tiny_encoder.words
    assert words is not None
    assert words.hit_rate(QUERIES) < 1, "what was timed was forgotten again"
    assert min(v for k, v in result.to_dict().items() if k.endswith("_us")) > 0
    assert result.threads >= 1
    assert result.full_qps is None


def test_a_timed_query_is_none_of_the_warming_ones(tiny_encoder: QueryEncoder) -> None:
    assert bench_query(tiny_encoder, QUERIES, ["heavy arm"]).queries == 3


def test_other_ids_than_the_tokenizers_end_the_run(tiny_encoder: QueryEncoder) -> None:
    words = tiny_encoder.words
    assert words is not None
    words.encode(["heavy arm", "heavy light"])
    known = words.known()
    pieces = {**known.pieces, "arm": known.pieces["light"]}
    words.remember(replace(known, pieces=pieces))
    with pytest.raises(SteelyardError, match="other token ids"):
        module._check(tiny_encoder, ["heavy arm"])
