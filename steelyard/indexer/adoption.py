"""Vectors that someone else wrote: stamped with their space, after a look whether it is true."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from steelyard.encoders.documents.protocol import DocumentEncoder
from steelyard.encoders.pack.metadata import PackMetadata
from steelyard.encoders.pack.spaces import short_hash
from steelyard.errors import EngineError, InputError, PackMismatchError
from steelyard.plugin.abilities import Adopts
from steelyard.plugin.engine import DENSE, Engine, Generation, SearchIndex
from steelyard.progress import Progress
from steelyard.types import l2_normalise

MIN_COSINE = 0.98
"""Of a stored vector and the pack's encoder's own for the same text: below it, another space."""


_LENGTH_ERROR = 5e-3


@dataclass(frozen=True, slots=True)
class AdoptionReport:
    """What was adopted.

    Attributes:
        generation: as stamped.
        documents: the engine's count.
        verified: how many documents were encoded again.
        cosines: least and median cosine of stored and new vectors; None without verification.
    """

    generation: Generation
    documents: int
    verified: int
    cosines: tuple[float, float] | None


def adopt_index(
    engine: Engine,
    existing: str,
    pack: PackMetadata,
    columns: dict[str, str],
    fields: dict[str, str],
    progress: Progress,
    *,
    verify: int = 20,
    open_encoder: Callable[[], DocumentEncoder],
) -> AdoptionReport:
    """Stamp an index of dense vectors with a pack's space, and point the alias to it.

    Args:
        engine: where it is; the alias is that of its URL.
        existing: name of the index or collection.
        pack: of the model that made the vectors.
        columns: what the index calls our fields.
        fields: metadata fields and their types.
        progress: shows the verification.
        verify: so many stored documents are encoded again and compared; 0 trusts the caller.
        open_encoder: the pack's document encoder, opened when there is something to verify.

    Raises:
        EngineError: the engine cannot adopt, or the index is not as described.
        PackMismatchError: the stored vectors are not the encoder's, or not of length 1; nothing is
            changed.
    """
    if not isinstance(engine, Adopts):
        raise EngineError("this engine adopts nothing", "OpenSearch and Milvus do")
    asked = Generation(
        name=existing,
        dense_space=pack.spaces.dense,
        sparse_space=pack.spaces.sparse,
        pack_id=pack.pack_id,
        content=short_hash([existing, columns, fields, pack.spaces.dense]),
        dims=pack.dense.dims,
        vocabulary_size=pack.dense.rows,
        scale=pack.sparse.scale,
        fields=fields,
        arms=(DENSE,),
        columns=columns,
    )
    index = engine.examine(asked)
    cosines = None
    if verify:
        with progress.stage("compare with the document encoder", verify) as advance:
            found = _cosines(index, verify, open_encoder)
            advance(len(found))
        cosines = (float(found.min()), float(np.median(found)))
        if cosines[1] < MIN_COSINE:
            raise PackMismatchError(
                f"the vectors of {existing} are not the pack's: of {len(found)} documents encoded "
                f"again the median cosine is {cosines[1]:.3f}, {MIN_COSINE} is needed",
                "adopt it with a pack of the model, prompt and maximum length that made them",
            )
        verify = len(found)
    stamped = engine.adopt(asked)
    engine.publish(stamped)
    return AdoptionReport(stamped, index.count(), verify, cosines)


def _cosines(
    index: SearchIndex, count: int, open_encoder: Callable[[], DocumentEncoder]
) -> np.ndarray:
    """Of stored vectors and those of the same documents' texts encoded now ``[n]``."""
    dims = index.generation.dims
    directions = np.random.default_rng(0).normal(size=(count, dims)).astype(np.float32)
    answers = index.dense.search(l2_normalise(directions), 3)
    ids = list(dict.fromkeys(i for answer in answers for i in answer.ids))[:count]
    stored = [found for found in index.get(ids, vectors=True).values() if found.dense is not None]
    readable = [found for found in stored if found.document.content.strip()]
    if not readable:
        raise InputError(
            f"{index.generation.name} stores no texts to compare by",
            "name its columns with --column title=... --column text=..., or trust it: --verify 0",
        )
    again = open_encoder().encode_document([found.document.content for found in readable]).dense
    if again is None:
        raise InputError("the pack's document encoder makes no dense vectors")
    vectors = np.array([found.dense for found in readable], np.float32)
    lengths = np.linalg.norm(vectors, axis=1)
    if np.abs(lengths - 1).max() > _LENGTH_ERROR:
        raise PackMismatchError(
            f"the vectors of {index.generation.name} are not of length 1 but {lengths.min():.3f} "
            f"to {lengths.max():.3f}, and compared by inner product",
            "store them normalised, or index them by COSINE",
        )
    products: np.ndarray = np.einsum("nd,nd->n", vectors, again)
    return products
