"""What sweeps found, as JSON of format 1: made by ``bench sizes|fusion``, read by ``report``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from steelyard.encoders.pack.json_fields import read_dataclass
from steelyard.errors import InputError, PackError

FORMAT = 1
SIZES, FUSION = "sizes", "fusion"


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over the judged queries.

    Attributes:
        ndcg10: nDCG@10.
        recall100: R@100.
    """

    ndcg10: float
    recall100: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean difference in nDCG@10 from a sweep's reference, query by query.

    Attributes:
        mean: of this point less the reference.
        low, high: 95 % percentile bootstrap interval.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class SizePoint:
    """One index and one table, and how good they are.

    Attributes:
        dims: components of a dense vector.
        max_terms: heaviest terms kept a document; None keeps all that are stored.
        dtype: of the table.
        dense_bytes: 4 bytes a component.
        posting_bytes: 13 bytes a posting.
        index_bytes: both together.
        table_bytes: of the query side's table, scales too.
        lookup, sparse, fused: quality of each arm and of both.
        difference: of fused from the largest index with the pack's own table type.
    """

    dims: int
    max_terms: int | None
    dtype: str
    dense_bytes: int
    posting_bytes: int
    index_bytes: int
    table_bytes: int
    lookup: Quality
    sparse: Quality
    fused: Quality
    difference: Difference | None = None


@dataclass(frozen=True, slots=True)
class FusionPoint:
    """One way of joining the arms, and how good it is.

    Attributes:
        dense: ``lookup`` or ``full``: where the dense query comes from.
        method: ``min-max`` or ``rrf``.
        dense_weight: of min-max; the sparse arm has the rest. None for ``rrf``.
        fused: its quality.
        difference: from the same arm at the weight nearest to the pack's.
    """

    dense: str
    method: str
    dense_weight: float | None
    fused: Quality
    difference: Difference | None = None


@dataclass(frozen=True, slots=True)
class SizesResult:
    """Quality against index size.

    Attributes:
        collection, queries, documents: what was measured.
        pack_id: of the pack.
        dims, dtype: of the pack's own table.
        candidates, fusion: how the arms were joined.
        points: one a combination.
        command: how to do it again.
        versions: of the packages that decide the figures.
    """

    collection: str
    queries: int
    documents: int
    pack_id: str
    dims: int
    dtype: str
    candidates: int
    fusion: dict[str, Any]
    points: list[SizePoint]
    command: str = ""
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FusionResult:
    """Quality against the dense arm's weight; attributes as in ``SizesResult``.

    ``dense_weight`` is the pack's own.
    """

    collection: str
    queries: int
    documents: int
    pack_id: str
    sparse: str
    dense_weight: float
    candidates: int
    points: list[FusionPoint]
    command: str = ""
    versions: dict[str, str] = field(default_factory=dict)


Result = TypeVar("Result", SizesResult, FusionResult)
_KINDS: dict[type, str] = {SizesResult: SIZES, FusionResult: FUSION}


def sweep_to_dict(result: SizesResult | FusionResult) -> dict[str, Any]:
    """A sweep as JSON."""
    return {"format": FORMAT, "kind": _KINDS[type(result)], **asdict(result)}


def read_sweep(path: Path, cls: type[Result]) -> Result:
    """The sweep that ``steelyard bench sizes|fusion --json`` wrote.

    Raises:
        InputError: no such file, no JSON, or another kind or format.
    """
    kind = _KINDS[cls]
    remedy = f"make it again with 'steelyard bench {kind} ... --json FILE'"
    if not path.is_file():
        raise InputError(f"no sweep at {path}", remedy)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON: {error}", remedy) from error
    if not isinstance(value, dict) or (value.get("format"), value.get("kind")) != (FORMAT, kind):
        found = value if isinstance(value, dict) else {}
        raise InputError(
            f"{path} is of kind {found.get('kind')!r} and format {found.get('format')!r}, "
            f"expected {kind!r} and {FORMAT}",
            remedy,
        )
    rest = {name: one for name, one in value.items() if name not in ("format", "kind")}
    try:
        return read_dataclass(cls, rest, str(path))
    except PackError as error:
        raise InputError(error.message, remedy) from error
