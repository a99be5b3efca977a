"""The searcher: text in, fused hits out, with no model on the way."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import EngineError, InputError
from steelyard.plugin.abilities import FusesArms, Highlights, MatchesText
from steelyard.plugin.deadline import Deadline
from steelyard.plugin.engine import Engine, SearchIndex
from steelyard.plugin.filters import Filter
from steelyard.plugin.fusion import Fusion
from steelyard.plugin.packs import OnePack, Packs, open_packs
from steelyard.plugin.search.answer import Answer, ArmHit, Explanation, Hit, TermMatch
from steelyard.plugin.search.arm_threads import ArmThreads
from steelyard.plugin.search.current import RESOLVE_SECONDS, Current, CurrentGeneration
from steelyard.plugin.search.drive import drive
from steelyard.plugin.search.recency import Recency
from steelyard.plugin.search.request import Request, SearchSettings, answer_plan
from steelyard.plugin.text_match import TextMatch
from steelyard.plugin.urls import open_engine

__all__ = [
    "RESOLVE_SECONDS",
    "Answer",
    "ArmHit",
    "Explanation",
    "Hit",
    "Recency",
    "Searcher",
    "TermMatch",
]


class Searcher:
    """Hybrid search over one index; safe to use from many threads.

    Args:
        queries: the query encoder; or where encoders come from, so that an index of another
            pack is searched with that pack from the switch-over on.
        engine: where the documents are.
        fusion, candidates, arms, filter, on_engine_failure, deadline, fused_by_engine: see
            ``SearchSettings``.
        resolve_every: seconds for which the alias is not read again, unless a search fails.
        text_match: of the ``match`` arm: how much more a word in the title counts.
    """

    def __init__(
        self,
        queries: QueryEncoder | Packs,
        engine: Engine,
        *,
        fusion: Fusion | str | None = None,
        candidates: int | None = None,
        arms: tuple[str, ...] | None = None,
        filter: Filter | None = None,
        on_engine_failure: str = "raise",
        deadline: float | None = None,
        fused_by_engine: bool = False,
        resolve_every: float = RESOLVE_SECONDS,
        text_match: TextMatch | None = None,
    ) -> None:
        self.engine = engine
        self.settings = SearchSettings(
            fusion, candidates, arms, filter, on_engine_failure, deadline, fused_by_engine
        )
        set_text_match(engine, text_match)
        packs = OnePack(queries) if isinstance(queries, QueryEncoder) else queries
        self._threads = ArmThreads()
        self._current = CurrentGeneration(engine, packs, self._threads, resolve_every)

    @classmethod
    def open(cls, pack: str | Path, url: str, **settings: Any) -> Searcher:
        """Open a pack and an engine, and check that they belong together.

        Args:
            pack: a pack's folder; or a folder of packs, of which the one that an index was made
                with is taken.
            url: of the engine.
            settings: as for ``Searcher``.

        Raises:
            PackMismatchError: the index's documents are of another space; both are shown.
            EngineError: there is no index of that name.
        """
        packs = open_packs(pack)
        vocabulary = packs.encoder.tokenizer if isinstance(packs, OnePack) else None
        engine = open_engine(url, must_exist=True, vocabulary=vocabulary)
        try:
            searcher = cls(packs, engine, **settings)
        except BaseException:
            engine.close()
            raise
        try:
            searcher.index()
        except BaseException:
            searcher.close()
            raise
        return searcher

    def __enter__(self) -> Searcher:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Release threads and the engine."""
        self._threads.close(wait=self.settings.deadline is None)
        self.engine.close()

    def index(self) -> SearchIndex:
        """The generation to search now; the alias is read again every 5 seconds."""
        return self._current.get(Deadline(None)).index

    @property
    def queries(self) -> QueryEncoder:
        """The encoder of the generation that is searched now."""
        return self._current.get(Deadline(None)).queries

    def search(
        self,
        text: str,
        k: int = 10,
        *,
        offset: int = 0,
        filter: Filter | None = None,
        feedback: int = 0,
        instruction: str | None = None,
        recency: Recency | None = None,
        documents: bool = True,
        highlight: bool = False,
        explain: bool = False,
        group_by_parent: bool = False,
    ) -> Answer:
        """Ranks ``offset + 1`` to ``offset + k`` for a query.

        Args:
            text: the query; may be anything, also empty.
            k: number of hits.
            offset: skip so many.
            filter: condition on metadata, applied inside all arms.
            feedback: refine the query by so many of its best documents' vectors and run the
                dense arm again; 0 is off.
            instruction: name of the pack's table; None is its default.
            recency: put newer documents first, other things being equal.
            documents: with title, text and metadata; without saves a request.
            highlight: with fragments of texts; only where the engine has its own BM25.
            explain: with the tokens that matched, and what fusion did.
            group_by_parent: only the best passage of each document; ``k`` and ``offset`` then
                count documents. There are fewer than ``k`` when the candidates are passages of
                fewer.

        Raises:
            InputError: ``offset + k`` exceeds the number of candidates, or the index has not
                what was asked for.
            EngineError: an arm failed, or all of them; see ``on_engine_failure``.
        """
        started = time.perf_counter()
        deadline = Deadline(self.settings.deadline)
        request = Request(
            text, k, offset, filter, feedback, instruction, recency, documents, highlight, explain,
            group_by_parent,
        )  # fmt: skip
        current = self._current.get(deadline)
        try:
            answer = self._answer(request, current, deadline, started)
            if not answer.missing:
                return answer
            fresh = self._current.newer_than(current, deadline)
            if fresh is None:
                return answer
        except EngineError:
            # The generation may have been dropped since the alias was read.
            fresh = self._current.newer_than(current, deadline)
            if fresh is None:
                raise
        return self._answer(request, fresh, deadline, started)

    def _answer(
        self, request: Request, current: Current, deadline: Deadline, started: float
    ) -> Answer:
        check_abilities(current.index, request, self.settings)
        plan = answer_plan(request, self.settings, current, current.index, started)
        return drive(plan, current.index, self._threads, deadline)


def set_text_match(engine: Engine, text_match: TextMatch | None) -> None:
    """Hand the settings of the ``match`` arm to the engine; None leaves its own.

    Raises:
        InputError: it has no such arm.
    """
    if text_match is None:
        return
    if not isinstance(engine, MatchesText):
        raise InputError("this engine has no match arm", "OpenSearch has")
    engine.text_match = text_match


def check_abilities(index: Any, request: Request, settings: SearchSettings) -> None:
    """Refuse what this engine cannot do."""
    for wanted, ability, what in (
        (request.highlight, Highlights, "highlights"),
        (settings.fused_by_engine, FusesArms, "fusion of its own"),
    ):
        if wanted and not isinstance(index, ability):
            raise InputError(f"this engine has no {what}", "OpenSearch has")
