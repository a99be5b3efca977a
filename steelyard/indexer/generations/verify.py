"""Is a loaded generation what was sent? Its count, the vectors of a sample, and smoke queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steelyard.errors import EngineError
from steelyard.plugin.engine import DENSE, SPARSE, Arm, Candidates, Queries, SearchIndex
from steelyard.plugin.quantise import quantise
from steelyard.types import EncodedDocuments, SparseVectors

SAMPLE = 32
"""Documents that are looked at."""

_TOLERANCE = 1e-5
"""Of a stored dense vector, in each dimension."""
_TOP = 10
_DEEP = 200
"""Where a graph search that misses a document in the top is asked again."""
_BY_GRAPH = 0.5
"""Of the sampled documents so many must be found by their dense vectors. A graph of vectors that
lie far from each other leaves some of them out of reach, and that is no fault of the load."""
_TERMS = 256
_SCORES = 1e-3
"""Relative, of scores that an engine adds up in float32."""
_HINT = "nothing is published: look at the engine's log, and load again"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was looked at, all of it right.

    Attributes:
        documents: the engine's own count.
        sampled: documents whose stored vectors were compared.
        queries: smoke queries that found their document.
    """

    documents: int
    sampled: int
    queries: int


def verify(
    index: SearchIndex, expected: int | None, sample: EncodedDocuments, scale: float
) -> VerifyReport:
    """Compare a sealed generation with what was sent to it.

    Args:
        index: the generation, opened with its pack's tokenizer.
        expected: how many documents it has; None where live changes have come on top.
        sample: some of its documents as they were sent (``sample_of``), less those that live
            changes have replaced or deleted since.
        scale: of impacts.

    Raises:
        EngineError: a count, a vector or a ranking that is wrong; both numbers.
    """
    name, count = index.generation.name, index.count()
    if expected is not None and count != expected:
        raise EngineError(f"{name} counts {count:,} documents, {expected:,} were sent", _HINT)
    if not len(sample):
        return VerifyReport(count, 0, 0)
    arms = index.generation.arms
    impacts, _ = quantise(sample.sparse, scale)
    _compare_stored(index, sample, impacts, arms)
    queries = 0
    if DENSE in arms:
        queries += _find_by_dense(index, sample)
    if SPARSE in arms:
        queries += _find_by_sparse(index, sample, impacts, scale)
    return VerifyReport(count, len(sample), queries)


def sample_of(batch: EncodedDocuments, count: int = SAMPLE) -> EncodedDocuments:
    """At most ``count`` documents, evenly spread."""
    step = max(1, -(-len(batch) // count))
    return batch.select(range(0, len(batch), step))


def joined(parts: Sequence[EncodedDocuments], vocabulary_size: int, dims: int) -> EncodedDocuments:
    """Samples of several shards as one."""
    rows = [row for part in parts for row in part.sparse.rows()]
    return EncodedDocuments(
        [document for part in parts for document in part.documents],
        np.concatenate([np.zeros((0, dims), np.float32), *(part.dense for part in parts)]),
        SparseVectors.from_rows(rows, vocabulary_size),
    )


def _compare_stored(
    index: SearchIndex,
    sample: EncodedDocuments,
    impacts: SparseVectors,
    arms: Sequence[str],
) -> None:
    name = index.generation.name
    ids = [document.id for document in sample.documents]
    stored = index.get(ids, vectors=DENSE in arms, terms=SPARSE in arms)
    missing = [identifier for identifier in ids if identifier not in stored]
    if missing:
        raise EngineError(
            f"{name} lacks {len(missing)} of {len(ids)} sampled documents: {missing[0]!r:.80}",
            _HINT,
        )
    for row, identifier in enumerate(ids):
        found = stored[identifier]
        if DENSE in arms:
            difference = np.inf
            if found.dense is not None and found.dense.shape == sample.dense[row].shape:
                difference = float(np.abs(found.dense - sample.dense[row]).max(initial=0.0))
            if not difference <= _TOLERANCE:
                raise EngineError(
                    f"the dense vector of {identifier!r:.80} in {name} differs by "
                    f"{difference:.2g} from the one sent, {_TOLERANCE:g} is allowed",
                    _HINT,
                )
        if SPARSE in arms:
            tokens, weights = impacts.row(row)
            theirs = found.impacts or (np.zeros(0, np.int32), np.zeros(0, np.float32))
            if not (np.array_equal(theirs[0], tokens) and np.array_equal(theirs[1], weights)):
                raise EngineError(
                    f"{identifier!r:.80} has {len(theirs[0])} terms of impact "
                    f"{theirs[1].sum():g} in {name}, {len(tokens)} of {weights.sum():g} were sent",
                    _HINT,
                )


def _find_by_dense(index: SearchIndex, sample: EncodedDocuments) -> int:
    rows = np.flatnonzero(np.linalg.norm(sample.dense, axis=1) > 0)
    vectors = sample.dense[rows]
    own = np.einsum("nd,nd->n", vectors, vectors).astype(np.float64)
    ids = [sample.documents[row].id for row in rows.tolist()]
    return _find(index.generation.name, index.dense, vectors, ids, own.tolist(), DENSE, _BY_GRAPH)


def _find_by_sparse(
    index: SearchIndex, sample: EncodedDocuments, impacts: SparseVectors, scale: float
) -> int:
    rows = np.flatnonzero(np.diff(impacts.indptr))
    stored = impacts.select(rows)
    queries = stored.heaviest(_TERMS)
    queries = SparseVectors(
        queries.indptr,
        queries.ids,
        (queries.weights / np.float32(scale)).astype(np.float32),
        queries.vocabulary_size,
    )
    own = np.asarray(queries.to_csr().multiply(stored.to_csr()).sum(axis=1)).ravel() / scale
    ids = [sample.documents[row].id for row in rows.tolist()]
    return _find(index.generation.name, index.sparse, queries, ids, own.tolist(), SPARSE, 1.0)


def _find(
    name: str,
    arm: Arm[Queries],
    queries: Queries,
    ids: list[str],
    own: list[float],
    what: str,
    share: float,
) -> int:
    """Each query's own document is in the top, or as good as the last one there.

    Args:
        name: of the generation.
        arm: to search.
        queries, ids, own: the vectors, whose they are, and their own scores.
        what: the arm, for the message.
        share: of the documents that must be found.

    Returns:
        How many were found.
    """
    if not ids:
        return 0
    answers = arm.search(queries, _TOP)
    deep: list[Candidates] | None = None
    missed: list[int] = []
    for row, (identifier, score, answer) in enumerate(zip(ids, own, answers, strict=True)):
        if _found(identifier, score, answer, _TOP):
            continue
        deep = deep or arm.search(queries, _DEEP)
        if not _found(identifier, score, deep[row], _DEEP):
            missed.append(row)
    if len(ids) - len(missed) < share * len(ids):
        row = missed[0]
        best = f"{answers[row].scores[0]:.4f}" if len(answers[row].scores) else "nothing"
        raise EngineError(
            f"{len(missed)} of {len(ids)} sampled documents are not found in {name} by their own "
            f"{what} vectors, {ids[row]!r:.80} first: its score is {own[row]:.4f}, the best found "
            f"{best}",
            _HINT,
        )
    return len(ids) - len(missed)


def _found(identifier: str, score: float, answer: Candidates, k: int) -> bool:
    if identifier in answer.ids:
        return True
    full = len(answer.ids) >= k
    return full and float(answer.scores[-1]) >= score - _SCORES * max(1.0, abs(score))
