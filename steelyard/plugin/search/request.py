"""One search: what is asked, and the plan from the encoded query to the answer."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steelyard.errors import EngineError, InputError
from steelyard.plugin.engine import (
    DENSE,
    MATCH,
    SPARSE,
    VECTOR_ARMS,
    Candidates,
    StoredDocument,
)
from steelyard.plugin.filters import And, Filter
from steelyard.plugin.fusion import Fusion
from steelyard.plugin.ranking import Method, Plan, Rankings, ranking_plan
from steelyard.plugin.search.answer import Answer, ArmHit, Hit
from steelyard.plugin.search.calls import Call, Fetch, Highlight
from steelyard.plugin.search.current import Current
from steelyard.plugin.search.explain import Explainer
from steelyard.plugin.search.parents import best_passages
from steelyard.plugin.search.recency import Recency, decayed
from steelyard.types import EncodedQueries

RAISE, DEGRADE = "raise", "degrade"
DOCUMENTS, HIGHLIGHTS = "documents", "highlights"


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """What all searches of a searcher have in common.

    Attributes:
        fusion: how the arms are joined; a method's name takes the pack's weights, None its
            method too.
        candidates: how many each arm gives; None is the pack's.
        arms: ``dense``, ``sparse``, ``match``; None is those with vectors that the index has.
        filter: applied to every search, whatever else it filters by: a tenant.
        on_engine_failure: ``raise``, or ``degrade``: answer without an arm that fails, as long
            as one answers; ``Answer.missing`` says which.
        deadline: seconds that a search may take; an arm that has not answered by then has failed.
        fused_by_engine: the engine joins the arms in one request, where it can.
    """

    fusion: Fusion | str | None = None
    candidates: int | None = None
    arms: tuple[str, ...] | None = None
    filter: Filter | None = None
    on_engine_failure: str = RAISE
    deadline: float | None = None
    fused_by_engine: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.fusion, str):
            Fusion(self.fusion)
        if self.on_engine_failure not in (RAISE, DEGRADE):
            raise InputError(
                f"on_engine_failure is {self.on_engine_failure!r}", f"{RAISE} or {DEGRADE}"
            )
        if self.deadline is not None and not 0 < self.deadline < float("inf"):
            raise InputError(f"a deadline of {self.deadline} seconds", "more than 0, or None")
        if self.candidates is not None and self.candidates < 1:
            raise InputError(f"{self.candidates} candidates", "1 or more, or None")
        known = (*VECTOR_ARMS, MATCH)
        unknown = [arm for arm in self.arms or () if arm not in known]
        if unknown or self.arms == () or len(set(self.arms or ())) != len(self.arms or ()):
            raise InputError(
                f"no arms {', '.join(self.arms or ())!r}", f"choose from {', '.join(known)}"
            )
        if self.fused_by_engine and self.arms not in (None, VECTOR_ARMS):
            raise InputError(
                "the engine joins the dense and the sparse arm only",
                "leave arms out, or fused_by_engine",
            )


@dataclass(frozen=True, slots=True)
class Request:
    """One search; see ``Searcher.search`` for the attributes."""

    text: str
    k: int
    offset: int
    filter: Filter | None
    feedback: int
    instruction: str | None
    recency: Recency | None
    documents: bool
    highlight: bool
    explain: bool
    group_by_parent: bool = False

    def method(self, settings: SearchSettings, current: Current, index: Any) -> Method:
        """How this query is ranked in this generation, by the index that is asked.

        Raises:
            InputError: more hits than candidates, or something that the index has not.
        """
        defaults = current.queries.metadata.fusion
        candidates = settings.candidates or defaults.candidates
        if self.k < 1 or self.offset < 0 or self.offset + self.k > candidates:
            raise InputError(
                f"offset {self.offset} + k {self.k} of {candidates} candidates",
                "ask for fewer, or raise candidates",
            )
        if self.recency is not None:
            self.recency.check(current.generation)
        has = current.index.arms
        arms = settings.arms or tuple(arm for arm in VECTOR_ARMS if arm in has)
        lacking = [arm for arm in arms if arm not in has]
        if lacking or not arms:
            raise InputError(
                f"{current.generation.name} has no {' and no '.join(lacking) or 'vector'} arm",
                f"it has: {', '.join(has)}",
            )
        if self.feedback < 0:
            raise InputError(f"feedback by {self.feedback} documents", "0 is off")
        if self.feedback and DENSE not in arms:
            raise InputError("feedback refines the dense arm, which is not searched")
        filters = [f for f in (settings.filter, self.filter) if f is not None]
        return Method(
            settings.fusion
            if isinstance(settings.fusion, Fusion)
            else Fusion.of_pack(defaults, settings.fusion),
            candidates,
            arms,
            And(filters) if len(filters) > 1 else next(iter(filters), None),
            self.feedback,
            settings.fused_by_engine,
            settings.on_engine_failure == DEGRADE,
            hasattr(index, "search_both"),
        )


def answer_plan(
    request: Request,
    settings: SearchSettings,
    current: Current,
    index: Any,
    started: float,
) -> Plan[Answer]:
    """From text to answer over one generation.

    Args:
        request: the search.
        settings: of the searcher.
        current: what is searched.
        index: that is asked: of ``current``, or the same opened asynchronously.
        started: when the search began, by ``time.perf_counter``.
    """
    before = time.perf_counter()
    encoded = current.queries.encode_query(request.text, instruction=request.instruction)
    encode_seconds = time.perf_counter() - before
    method = request.method(settings, current, index)
    if MATCH not in method.arms and encoded.empty[0]:
        hits: list[Hit] = []
        missing: Mapping[str, EngineError] = {}
    else:
        hits, missing = yield from _hits_plan(request, method, current, encoded)
    return Answer(
        hits,
        current.generation.name,
        bool(encoded.empty[0]),
        bool(encoded.truncated[0]),
        time.perf_counter() - started,
        encode_seconds,
        {name: str(error) for name, error in missing.items()},
        current.behind,
    )


def _hits_plan(
    request: Request, method: Method, current: Current, encoded: EncodedQueries
) -> Plan[tuple[list[Hit], dict[str, EngineError]]]:
    rankings: Rankings = yield from ranking_plan(encoded, [request.text], method)
    (ranking,), missing = rankings.each, dict(rankings.missing)
    fused, factors = ranking.fused, dict[str, float]()
    if request.recency is not None and fused.ids:
        window = fused.ids[: request.recency.window]
        stored = yield from _fetched(Fetch(window), method, missing)
        factors = request.recency.factors(window, stored or {})
        fused = decayed(fused, factors)
    first, end = request.offset, request.offset + request.k
    parents: Mapping[str, StoredDocument] = {}
    if request.group_by_parent:
        best, parents = yield from best_passages(fused.ids, end, method, missing)
        chosen = best[first:end]
    else:
        chosen = fused.ids[first:end]
    found, highlights = yield from _looked_up(request, chosen, parents, method, missing)
    if found is not None:
        # The lead engine decides what exists: a document that it lacks was deleted meanwhile.
        chosen = [i for i in chosen if i in found]
    elif DOCUMENTS not in missing:
        chosen = yield from _existing(chosen, ranking.arms, current, method, missing)
    explainer = None
    if request.explain and found is not None:
        explainer = Explainer(
            current.queries,
            request.text,
            request.instruction,
            encoded,
            current.generation,
            ranking.arms,
            method.fusion,
            refined=rankings.refined,
        )
    wanted = set(chosen)
    scores = _hits_of(fused, wanted)
    arms = {arm: _hits_of(candidates, wanted) for arm, candidates in ranking.arms.items()}
    hits = []
    for i in chosen:
        document = found[i] if found is not None else parents.get(i)
        said = {arm: of.get(i) for arm, of in arms.items()}
        hits.append(
            Hit(
                i,
                scores[i].score,
                said.get(DENSE),
                said.get(SPARSE),
                said.get(MATCH),
                document.document if document and request.documents else None,
                highlights.get(i, {}),
                explainer.explain(i, document, factors.get(i)) if explainer and document else None,
                document.document.parent_id or i if document else "",
            )
        )
    return hits, missing


def _looked_up(
    request: Request,
    ids: Sequence[str],
    known: Mapping[str, StoredDocument],
    method: Method,
    missing: dict[str, EngineError],
) -> Plan[tuple[Mapping[str, StoredDocument] | None, Mapping[str, Any]]]:
    """Documents and highlights of the hits; None where documents were not asked for, or failed.

    ``known`` documents are not read again, unless with their vectors.
    """
    calls: list[Call] = []
    read_already = not request.explain and all(i in known for i in ids)
    if (request.documents or request.explain) and not read_already:
        calls.append(Fetch(ids, vectors=request.explain, terms=request.explain, share=1.0))
    if request.highlight:
        calls.append(Highlight(ids, request.text))
    if not calls or not ids:
        return (known if read_already and known else None), {}
    answers = yield calls
    named = dict(zip((call.name for call in calls), answers, strict=True))
    found = named.get(Fetch(ids).name, known if read_already and known else None)
    highlights = named.get(Highlight(ids, "").name, {})
    for name, answer in ((DOCUMENTS, found), (HIGHLIGHTS, highlights)):
        if isinstance(answer, EngineError):
            _note(name, answer, method, missing)
    return (
        None if isinstance(found, EngineError) else found,
        {} if isinstance(highlights, EngineError) else highlights,
    )


def _existing(
    ids: list[str],
    arms: Mapping[str, Candidates],
    current: Current,
    method: Method,
    missing: dict[str, EngineError],
) -> Plan[list[str]]:
    """The ids that the lead of a pair has; those that its own arm returned are known to be."""
    lead = getattr(current.index, "lead_arm", None)
    if lead is None:
        return ids
    sure = set(arms[lead].ids) if lead in arms else set()
    unsure = [i for i in ids if i not in sure]
    if not unsure:
        return ids
    stored = yield from _fetched(Fetch(unsure, share=1.0), method, missing)
    return ids if stored is None else [i for i in ids if i in sure or i in stored]


def _fetched(
    call: Fetch, method: Method, missing: dict[str, EngineError]
) -> Generator[Sequence[Call], Sequence[Any], Mapping[str, StoredDocument] | None]:
    (answer,) = yield [call]
    if isinstance(answer, EngineError):
        _note(DOCUMENTS, answer, method, missing)
        return None
    stored: Mapping[str, StoredDocument] = answer
    return stored


def _note(name: str, error: EngineError, method: Method, missing: dict[str, EngineError]) -> None:
    if not method.degrade:
        raise error
    missing[name] = error


def _hits_of(candidates: Candidates, wanted: set[str]) -> dict[str, ArmHit]:
    """Score and rank of the wanted ids, as far as they are candidates."""
    return {
        identifier: ArmHit(float(candidates.scores[place]), place + 1)
        for place, identifier in enumerate(candidates.ids)
        if identifier in wanted
    }
