"""What every engine refuses before it writes anything of a batch."""

from __future__ import annotations

import math

import numpy as np

from steelyard.errors import EngineError
from steelyard.plugin.engine import DENSE, SPARSE, Generation
from steelyard.types import MAX_ID_BYTES, EncodedDocuments


def check_batch(generation: Generation, batch: EncodedDocuments) -> None:
    """Refuse what an engine would refuse halfway, or take for something else.

    Only the arms that the generation holds are looked at.

    Raises:
        EngineError: vectors of another size, NaN or infinity, or an id that is empty or too long;
            with the document's id.
    """
    wrong: dict[int, str] = {}
    if DENSE in generation.arms:
        _check_size(batch.dense.shape[1], generation.dims, "dimensions", generation.name)
        rows = np.flatnonzero(~np.isfinite(batch.dense).all(axis=1)).tolist()
        wrong |= dict.fromkeys(rows, "its dense vector")
    if SPARSE in generation.arms:
        columns = batch.sparse.vocabulary_size
        _check_size(columns, generation.vocabulary_size, "columns", generation.name)
        places = np.flatnonzero(~np.isfinite(batch.sparse.weights))
        rows = (np.searchsorted(batch.sparse.indptr, places, side="right") - 1).tolist()
        wrong = dict.fromkeys(rows, "its sparse vector") | wrong
    for row, document in enumerate(batch.documents):
        size = len(document.id.encode("utf-8", "surrogatepass"))
        if not 0 < size <= MAX_ID_BYTES:
            raise EngineError(
                f"the id {document.id!r:.60} has {size} bytes, engines take 1 to {MAX_ID_BYTES}",
                "give the document another id; nothing of this batch is written",
            )
        for field, value in document.metadata.items():
            if isinstance(value, float) and not math.isfinite(value):
                wrong.setdefault(row, f"its {field!r}")
    for row, what in sorted(wrong.items()):
        raise EngineError(
            f"document {batch.documents[row].id!r:.80}: {what} has NaN or infinity",
            "encode it again; nothing of this batch is written",
        )


def _check_size(found: int, expected: int, what: str, name: str) -> None:
    if found != expected:
        raise EngineError(
            f"vectors of {found:,} {what} for {name}, which has {expected:,}",
            "index with the pack that the generation was made for",
        )
