"""Quality against size: dimensions x terms a document x table type.

Everything is measured on one copy of the stored vectors, in memory. A dense ranking is made once
for each table, a sparse one once for each number of terms, and joined for each pair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.encoders.query.tokenizer import TokenRows
from steelyard.errors import InputError
from steelyard.eval.collection import JudgedQueries
from steelyard.eval.results import package_versions
from steelyard.eval.sweeps.quality import Graded, Judge, differences
from steelyard.eval.sweeps.results import Quality, SizePoint, SizesResult
from steelyard.eval.sweeps.truncation import (
    dense_bytes,
    first_dims,
    heaviest_terms,
    narrowed,
    posting_bytes,
    table_bytes,
    widened,
)
from steelyard.plugin.engine import Candidates
from steelyard.plugin.exact import ExactIndex
from steelyard.plugin.fusion import Fusion
from steelyard.progress import Progress
from steelyard.types import SparseVectors

TERMS: tuple[int | None, ...] = (32, 64, 128, 256)
_DIMS = (64, 128, 256)


@dataclass(frozen=True, slots=True)
class SizeGrid:
    """What is combined with what.

    Attributes:
        dims: of the dense vectors, each at most the pack's.
        max_terms: heaviest terms kept a document; None keeps all that are stored.
        dtypes: of the table.
    """

    dims: Sequence[int]
    max_terms: Sequence[int | None] = TERMS
    dtypes: Sequence[str] = ("float32", "float16", "int8")


def default_dims(dims: int) -> tuple[int, ...]:
    """64, 128 and 256 as far as the pack has more, and the pack's own."""
    return (*(few for few in _DIMS if few < dims), dims)


@dataclass(frozen=True, slots=True)
class _Arm:
    """One arm's ranking, what it measures, and its size in bytes."""

    rankings: list[Candidates]
    quality: Quality
    bytes: int
    table_bytes: int = 0


def measure_sizes(
    index: ExactIndex,
    queries: QueryEncoder,
    judged: JudgedQueries,
    grid: SizeGrid,
    progress: Progress,
    *,
    fusion: Fusion,
    candidates: int,
) -> SizesResult:
    """Look-up, sparse and fused for every combination.

    Args:
        index: the stored vectors.
        queries: the pack; its default table is used.
        judged: the queries.
        grid: the combinations.
        progress: shows them.
        fusion, candidates: as in the searcher.

    Raises:
        InputError: more dimensions than there are, no dimension, no term, an unknown dtype.
    """
    content = index.export()
    _check(grid, content.dense.shape[1])
    texts = [query.text for query in judged.queries]
    judge, tokens = Judge(judged), queries.dense_tokens.encode(texts)
    points: list[SizePoint] = []
    graded: list[Graded] = []
    total = len(grid.dims) * len(grid.dtypes) + len(grid.max_terms)
    with progress.stage("search", total) as advance:
        dense = {}
        for dims in grid.dims:
            for dtype in grid.dtypes:
                dense[dims, dtype] = _dense_arm(
                    index, queries, tokens, judge, dims, dtype, candidates
                )
                advance(1)
        sparse = {}
        terms = queries.encode_sparse(texts)
        for count in grid.max_terms:
            sparse[count] = _sparse_arm(index, terms, judge, count, candidates)
            advance(1)
    with progress.stage("fuse", len(dense) * len(sparse)) as advance:
        for (dims, dtype), one in dense.items():
            for count, other in sparse.items():
                graded.append(judge.fused(one.rankings, other.rankings, fusion))
                points.append(
                    SizePoint(
                        dims=dims,
                        max_terms=count,
                        dtype=dtype,
                        dense_bytes=one.bytes,
                        posting_bytes=other.bytes,
                        index_bytes=one.bytes + other.bytes,
                        table_bytes=one.table_bytes,
                        lookup=one.quality,
                        sparse=other.quality,
                        fused=graded[-1].quality,
                    )
                )
                advance(1)
    metadata = queries.metadata
    told = differences(graded, _largest(points, metadata.dense.dtype))
    return SizesResult(
        collection=judged.name,
        queries=len(judged.queries),
        documents=len(content),
        pack_id=metadata.pack_id,
        dims=metadata.dense.dims,
        dtype=metadata.dense.dtype,
        candidates=candidates,
        fusion=asdict(fusion),
        points=[replace(p, difference=d) for p, d in zip(points, told, strict=True)],
        versions=package_versions(),
    )


def _largest(points: Sequence[SizePoint], dtype: str) -> int:
    """Place of the point with the most dimensions and terms; of those, the pack's own table."""

    def size(at: int) -> tuple[int, float, bool]:
        point = points[at]
        return (point.dims, point.max_terms or math.inf, point.dtype == dtype)

    return max(range(len(points)), key=size)


def _dense_arm(
    index: ExactIndex,
    queries: QueryEncoder,
    tokens: TokenRows,
    judge: Judge,
    dims: int,
    dtype: str,
    candidates: int,
) -> _Arm:
    content = index.export()
    table = narrowed(widened(queries.tables[queries.metadata.dense.default_table]), dims, dtype)
    smaller = replace(content, dense=first_dims(content.dense, dims))
    rankings = ExactIndex(index.generation, smaller).dense.search(table.encode(tokens), candidates)
    return _Arm(
        rankings, judge.grade(rankings).quality, dense_bytes(smaller.dense), table_bytes(table)
    )


def _sparse_arm(
    index: ExactIndex, terms: SparseVectors, judge: Judge, count: int | None, candidates: int
) -> _Arm:
    content = index.export()
    kept = heaviest_terms(content.sparse, count)
    smaller = ExactIndex(index.generation, replace(content, sparse=kept))
    rankings = smaller.sparse.search(terms, candidates)
    return _Arm(rankings, judge.grade(rankings).quality, posting_bytes(kept))


def _check(grid: SizeGrid, most: int) -> None:
    wrong = [dims for dims in grid.dims if not 1 <= dims <= most]
    if wrong or not grid.dims:
        raise InputError(
            f"{wrong[0]} dimensions of vectors that have {most}" if wrong else "no dimensions",
            f"give 1 to {most}",
        )
    few = [count for count in grid.max_terms if count is not None and count < 1]
    if few or not grid.max_terms:
        raise InputError(
            f"{few[0]} terms a document" if few else "no number of terms", "give 1 or more"
        )
    if not grid.dtypes:
        raise InputError("no table type", "give float32, float16 or int8")
