"""Quality against the dense arm's weight in the fusion; every arm is searched once."""

from __future__ import annotations

from collections.abc import Callable

from steelyard.encoders.documents.batching import encode_in_batches
from steelyard.encoders.documents.protocol import FullModel
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import InputError
from steelyard.eval.collection import JudgedQueries
from steelyard.eval.results import package_versions
from steelyard.eval.sweeps.quality import Graded, Judge, differences
from steelyard.eval.sweeps.results import FusionPoint, FusionResult
from steelyard.plugin.engine import SearchIndex
from steelyard.plugin.fusion import Fusion
from steelyard.progress import Progress
from steelyard.types import DenseVectors

STEP = 0.05


def weights(step: float = STEP) -> list[float]:
    """0 to 1 in equal steps, both ends included.

    Raises:
        InputError: a step that does not divide 1.
    """
    steps = round(1 / step) if 0.001 <= step <= 1 else 0
    if not steps or abs(steps * step - 1) > 1e-9:
        raise InputError(f"steps of {step:g} do not end at 1", "give for example 0.05")
    return [round(position / steps, 9) for position in range(steps + 1)]


def measure_fusion(
    index: SearchIndex,
    queries: QueryEncoder,
    judged: JudgedQueries,
    open_full_model: Callable[[], FullModel] | None,
    progress: Progress,
    *,
    candidates: int,
    step: float = STEP,
) -> FusionResult:
    """Min-max at every weight, and RRF, for look-up + sparse and full model + sparse.

    Args:
        index: the documents.
        queries: the pack.
        judged: the queries.
        open_full_model: None leaves the full model out.
        progress: shows the stages.
        candidates: of each arm.
        step: between two weights.
    """
    grid, defaults = weights(step), queries.metadata.fusion
    texts = [query.text for query in judged.queries]
    vectors: dict[str, DenseVectors] = {"lookup": queries.encode_dense(texts)}
    if open_full_model is not None:
        with progress.stage("encode queries with the full model"):
            model = open_full_model()
            lengths = model.token_lengths(texts)
            vectors["full"] = encode_in_batches(texts, lengths, model.encode_query, model.dims)
    judge = Judge(judged)
    points: list[FusionPoint] = []
    with progress.stage("search"):
        sparse = index.sparse.search(queries.encode_sparse(texts), candidates)
        dense = {name: index.dense.search(some, candidates) for name, some in vectors.items()}
    with progress.stage("fuse", len(dense) * (len(grid) + 1)) as advance:
        for name, rankings in dense.items():
            ways = [Fusion("min-max", (weight, 1 - weight)) for weight in grid]
            graded: list[Graded] = []
            alone_at = {0.0: sparse, 1.0: rankings}
            for way in (*ways, Fusion("rrf", rrf_k=defaults.rrf_k)):
                # At weight 0 a fused ranking still holds the other arm's documents.
                alone = alone_at.get(way.weights[0]) if way.method == "min-max" else None
                graded.append(
                    judge.fused(rankings, sparse, way) if alone is None else judge.grade(alone)
                )
                advance(1)
            own = min(range(len(grid)), key=lambda at: abs(grid[at] - defaults.dense_weight))
            told = differences(graded, own)
            for weight, one, difference in zip((*grid, None), graded, told, strict=True):
                method = "rrf" if weight is None else "min-max"
                points.append(FusionPoint(name, method, weight, one.quality, difference))
    return FusionResult(
        collection=judged.name,
        queries=len(texts),
        documents=index.count(),
        pack_id=queries.metadata.pack_id,
        sparse=queries.metadata.sparse.kind,
        dense_weight=defaults.dense_weight,
        candidates=candidates,
        points=points,
        versions=package_versions(),
    )
