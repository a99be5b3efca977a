"""The searcher: text in, fused hits out, with no model on the way."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import EngineError, InputError, PackMismatchError
from steelyard.plugin.engine import (
    Candidates,
    Engine,
    Generation,
    SearchIndex,
)
from steelyard.plugin.filters import Filter
from steelyard.plugin.fusion import Fusion
from steelyard.plugin.ranking import rank
from steelyard.plugin.urls import open_engine
from steelyard.types import Document, EncodedQueries

RESOLVE_SECONDS = 5.0
"""A searcher asks for the alias's generation at most this often."""


@dataclass(frozen=True, slots=True)
class ArmHit:
    """What one arm says of one document: its inner product, and its rank from 1."""

    score: float
    rank: int


@dataclass(frozen=True, slots=True)
class Hit:
    """One result.

    Attributes:
        id, score: the fused score.
        dense, sparse: what each arm said; None where the arm did not return the document.
        document: title, text and metadata; None in rankings made without fetching.
    """

    id: str
    score: float
    dense: ArmHit | None
    sparse: ArmHit | None
    document: Document | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one query.

    Attributes:
        hits: best first.
        generation: which build of the index answered.
        empty: the query had no known token, so there are no hits.
        truncated: the query was cut to the pack's ``query_max_tokens``.
        seconds: from text to hits.
    """

    hits: list[Hit]
    generation: str
    empty: bool
    truncated: bool
    seconds: float


class Searcher:
    """Hybrid search over one index; safe to use from many threads.

    Args:
        queries: the query encoder.
        engine: where the documents are.
        fusion: None takes the pack's.
        candidates: how many each arm gives to fusion; None takes the pack's.
    """

    def __init__(
        self,
        queries: QueryEncoder,
        engine: Engine,
        *,
        fusion: Fusion | None = None,
        candidates: int | None = None,
    ) -> None:
        defaults = queries.metadata.fusion
        self.queries = queries
        self.engine = engine
        self.fusion = fusion or Fusion.of_pack(defaults)
        self.candidates = candidates or defaults.candidates
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="steelyard-arm")
        self._index: SearchIndex | None = None
        self._resolved_at = 0.0

    @classmethod
    def open(
        cls,
        pack: str | Path,
        url: str,
        *,
        fusion: Fusion | None = None,
        candidates: int | None = None,
    ) -> Searcher:
        """Open a pack and an engine, and check that they belong together.

        Raises:
            PackMismatchError: the index's documents are of another space; both are shown.
            EngineError: there is no index of that name.
        """
        queries = QueryEncoder.load(pack)
        engine = open_engine(url, must_exist=True, vocabulary=queries.tokenizer)
        searcher = cls(queries, engine, fusion=fusion, candidates=candidates)
        try:
            searcher.index()
        except Exception:
            searcher.close()
            raise
        return searcher

    def __enter__(self) -> Searcher:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Release threads and the engine."""
        self._threads.shutdown(wait=True)
        self.engine.close()

    def index(self) -> SearchIndex:
        """The generation to search now; the alias is read again every 5 seconds."""
        now = time.monotonic()
        if self._index is None or now - self._resolved_at > RESOLVE_SECONDS:
            generation = self.engine.resolve()
            if generation is None:
                raise EngineError(
                    f"no index {self.engine.alias!r} in this engine",
                    "make one with 'steelyard index'",
                )
            if self._index is None or self._index.generation != generation:
                check_spaces(self.queries, generation)
                self._index = self.engine.open(generation)
            self._resolved_at = now
        return self._index

    def search(
        self,
        text: str,
        k: int = 10,
        *,
        offset: int = 0,
        filter: Filter | None = None,
        feedback: int = 0,
        instruction: str | None = None,
    ) -> Answer:
        """Ranks ``offset + 1`` to ``offset + k`` for a query.

        Args:
            text: the query; may be anything, also empty.
            k: number of hits.
            offset: skip so many.
            filter: condition on metadata, applied inside both arms.
            feedback: refine the query by so many of its best documents' vectors and run the
                dense arm again; 0 is off.
            instruction: name of the pack's table; None is its default.

        Raises:
            InputError: ``offset + k`` exceeds the number of candidates.
        """
        started = time.perf_counter()
        if k < 1 or offset < 0 or offset + k > self.candidates:
            raise InputError(
                f"offset {offset} + k {k} of {self.candidates} candidates",
                "ask for fewer, or raise candidates",
            )
        encoded = self.queries.encode_query(text, instruction=instruction)
        index = self.index()
        try:
            hits = self._hits(index, encoded, k, offset, filter, feedback)
        except EngineError:
            # The generation may have been dropped since the alias was read.
            self._resolved_at = -RESOLVE_SECONDS
            fresh = self.index()
            if fresh.generation == index.generation:
                raise
            index = fresh
            hits = self._hits(index, encoded, k, offset, filter, feedback)
        return Answer(
            hits,
            index.generation.name,
            bool(encoded.empty[0]),
            bool(encoded.truncated[0]),
            time.perf_counter() - started,
        )

    def _hits(
        self,
        index: SearchIndex,
        encoded: EncodedQueries,
        k: int,
        offset: int,
        filter: Filter | None,
        feedback: int,
    ) -> list[Hit]:
        (ranking,) = rank(
            index,
            encoded,
            self.fusion,
            self.candidates,
            self._threads,
            filter=filter,
            feedback=feedback,
        )
        chosen = ranking.fused.ids[offset : offset + k]
        stored = index.get(chosen)
        dense, sparse = _arm_hits(ranking.dense), _arm_hits(ranking.sparse)
        scores = dict(zip(ranking.fused.ids, ranking.fused.scores.tolist(), strict=True))
        return [
            Hit(i, scores[i], dense.get(i), sparse.get(i), stored[i].document)
            for i in chosen
            if i in stored
        ]


def check_spaces(queries: QueryEncoder, generation: Generation) -> None:
    """Refuse a pack whose spaces are not the index's, showing both."""
    spaces = queries.metadata.spaces
    for arm, ours, theirs in (
        ("dense", spaces.dense, generation.dense_space),
        ("sparse", spaces.sparse, generation.sparse_space),
    ):
        if ours != theirs:
            raise PackMismatchError(
                f"the pack's {arm} space is {ours}, the documents of {generation.name} are in "
                f"{theirs}",
                "search with a pack of that space, or index the corpus with this pack",
            )


def _arm_hits(candidates: Candidates) -> dict[str, ArmHit]:
    return {
        identifier: ArmHit(score, rank)
        for rank, (identifier, score) in enumerate(
            zip(candidates.ids, candidates.scores.tolist(), strict=True), start=1
        )
    }
