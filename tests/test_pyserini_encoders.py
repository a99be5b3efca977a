"""Query packs as Pyserini's query encoders: what they give, without Pyserini."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import InputError
from steelyard.eval.pyserini.query_encoders import (
    MAX_QUERY_TERMS,
    DenseQueryEncoder,
    ImpactQueryEncoder,
    query_impacts,
)
from steelyard.types import SparseVectors

TEXT = "the heavy arm, the query!"


def rows(*terms: dict[int, float]) -> SparseVectors:
    made = [
        (np.array(list(row), np.int32), np.array(list(row.values()), np.float32)) for row in terms
    ]
    return SparseVectors.from_rows(made, 1000)


def test_weights_are_rounded_to_the_nearest_integer_and_zeros_left_out() -> None:
    queries = rows({1: 0.0049, 2: 0.0051, 7: 1.994, 999: 12.0}, {})
    assert query_impacts(queries, 100) == [{"2": 1, "7": 199, "999": 1200}, {}]
    assert query_impacts(queries, 10_000)[0] == {"1": 49, "2": 51, "7": 19940, "999": 120000}


def test_the_heaviest_terms_are_kept() -> None:
    (found,) = query_impacts(rows({token: 1 + token / 1000 for token in range(600)}))
    assert len(found) == MAX_QUERY_TERMS
    assert set(found) == {str(token) for token in range(600 - MAX_QUERY_TERMS, 600)}


def test_the_sparse_arm(tiny_pack: Path, tiny_encoder: QueryEncoder) -> None:
    encoder = ImpactQueryEncoder(tiny_pack, 100)
    ids, weights = tiny_encoder.encode_query(TEXT).sparse.row(0)
    found = encoder.encode(TEXT)
    assert found == {str(i): round(100 * w) for i, w in zip(ids.tolist(), weights, strict=True)}
    assert {type(weight) for weight in found.values()} == {int}
    assert encoder.encode("zzz") == {}
    assert encoder.encode_batch([TEXT, ""]) == [found, {}]
    with pytest.raises(InputError, match="a scale of 0"):
        ImpactQueryEncoder(tiny_encoder, 0)


def test_the_dense_arm(tiny_encoder: QueryEncoder) -> None:
    encoder = DenseQueryEncoder(tiny_encoder)
    vector = encoder.encode(TEXT)
    assert vector.shape == (8,)
    assert vector.dtype == np.float32
    np.testing.assert_array_equal(vector, tiny_encoder.encode_query(TEXT).dense[0])
    batch = encoder.encode_batch([TEXT, "zzz"])
    np.testing.assert_allclose(batch, np.vstack([vector, 0 * vector]), atol=1e-7)
    with pytest.raises(InputError, match="no instruction 'shopping'"):
        DenseQueryEncoder(tiny_encoder, "shopping")
