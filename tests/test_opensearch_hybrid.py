"""Arms joined by OpenSearch itself, compared with our own joining, on a real node."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from steelyard.errors import InputError
from steelyard.plugin.abilities import FusesArms
from steelyard.plugin.engine import Candidates
from steelyard.plugin.filters import Eq
from steelyard.plugin.fusion import Fusion, fuse
from steelyard.types import DenseVectors, SparseVectors, l2_normalise
from tests.servers.opensearch_words import Opener, Words
from tests.test_milvus_lite import documents
from tests.test_opensearch_match import fill

pytest_plugins = ["tests.servers.opensearch", "tests.servers.opensearch_alias"]
pytestmark = [pytest.mark.opensearch]

CANDIDATES = 25


def queries(count: int) -> tuple[DenseVectors, SparseVectors]:
    rng = np.random.default_rng(11)
    rows = [
        (np.sort(rng.choice(50, 12, replace=False)).astype(np.int32),
         rng.uniform(0.5, 2, 12).astype(np.float32))
        for _ in range(count)
    ]  # fmt: skip
    dense = l2_normalise(rng.normal(size=(count, 8)).astype(np.float32))
    return dense, SparseVectors.from_rows(rows, 50)


def expected(index: Any, dense: Any, sparse: Any, fusion: Fusion, **more: Any) -> list[Candidates]:
    arms = zip(
        index.dense.search(dense, CANDIDATES, **more),
        index.sparse.search(sparse, CANDIDATES, **more),
        strict=True,
    )
    return [fuse(pair, fusion) for pair in arms]


@pytest.mark.parametrize("fusion", [
    Fusion(), Fusion(weights=(1.4, 0.6)), Fusion("rrf"), Fusion("rrf", rrf_k=10)
], ids=["min-max", "weights that are not 1", "rrf", "rrf of 10"])  # fmt: skip
@pytest.mark.parametrize("condition", [None, Eq("sale", True)], ids=["all", "filtered"])
def test_the_cluster_joins_as_we_do(
    opener: Opener, named: Any, fusion: Fusion, condition: Any
) -> None:
    """But for each arm's last, to which min_max gives .001 of the weight and we give 0."""
    index = fill(opener(Words()), named(), documents(400))
    assert isinstance(index, FusesArms)
    dense, sparse = queries(60)
    ours = expected(index, dense, sparse, fusion, filter=condition)
    theirs = index.hybrid(dense, sparse, fusion, CANDIDATES, CANDIDATES, filter=condition)
    pages = [
        index.hybrid(dense, sparse, fusion, CANDIDATES, 5, offset=offset, filter=condition)
        for offset in range(0, CANDIDATES, 5)
    ]
    largest = 0.0
    for mine, found, *parts in zip(ours, theirs, *pages, strict=True):
        scores = dict(zip(mine.ids, mine.scores.tolist(), strict=True))
        differences = [
            abs(score - scores[i]) for i, score in zip(found.ids, found.scores, strict=True)
        ]
        largest = max(largest, *differences)
        assert len(found.ids) == CANDIDATES
        allowed = 0.0 if fusion.method == "rrf" else 0.001 * sum(fusion.weights)
        assert max(differences) <= allowed + 2e-6
        # Ranked as ours, but where two scores are nearer to each other than the difference.
        in_our_order = np.array([scores[i] for i in found.ids])
        assert (np.diff(in_our_order) <= 2 * largest + 4e-6).all()
        assert {i for part in parts for i in part.ids} == set(found.ids)
        np.testing.assert_array_equal(np.concatenate([p.scores for p in parts]), found.scores)
    print(f"{fusion.method}: scores differ by {largest:.1e}")


def test_queries_of_one_arm_or_none(opener: Opener, named: Any) -> None:
    index = fill(opener(Words()), named(), documents(40))
    assert isinstance(index, FusesArms)
    dense, sparse = queries(3)
    dense[1] = 0
    dense[2] = 0
    empty = (np.zeros(0, np.int32), np.zeros(0, np.float32))
    sparse = SparseVectors.from_rows([empty, sparse.row(1), empty], 50)
    for fusion in (Fusion(), Fusion("rrf")):
        first, second, none = index.hybrid(dense, sparse, fusion, CANDIDATES, 10)
        ours = expected(index, dense, sparse, fusion)
        assert none.ids == []
        for mine, found in zip(ours, (first, second), strict=False):
            assert found.ids == mine.ids[:10]
            np.testing.assert_allclose(found.scores, mine.scores[:10], atol=2e-3)
    with pytest.raises(InputError, match="of 25 candidates"):
        index.hybrid(dense, sparse, Fusion(), CANDIDATES, 20, offset=6)


def test_many_at_once(opener: Opener, named: Any) -> None:
    """More than one request: each search of it carries its own pipeline."""
    index = fill(opener(Words()), named(), documents(40))
    assert isinstance(index, FusesArms)
    dense, sparse = queries(130)
    together = index.hybrid(dense, sparse, Fusion(), CANDIDATES, 5)
    alone = [
        index.hybrid(dense[i : i + 1], sparse.select([i]), Fusion(), CANDIDATES, 5)[0]
        for i in (0, 51, 129)
    ]
    assert [together[i].ids for i in (0, 51, 129)] == [one.ids for one in alone]
