"""What is to be evaluated: collections, and the systems of each with all their settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from steelyard.encoders.pack.metadata import FusionDefaults
from steelyard.errors import InputError
from steelyard.eval.collection import JudgedQueries
from steelyard.eval.evaluate import EVALUATION_CANDIDATES
from steelyard.eval.measures import MEASURES
from steelyard.eval.significance import SignificanceSettings
from steelyard.eval.systems import FULL, LOOKUP, System
from steelyard.plugin.fusion import Fusion

EXACT, ENGINE, RUNS = "exact", "engine", "runs"
SEARCHES = (EXACT, ENGINE)
"""In memory, over the vectors that the engine stores; or the engine's own search."""


@dataclass(frozen=True, slots=True)
class FusionChange:
    """How a system is fused, where it is not as its pack says; None is the pack's."""

    method: str | None = None
    dense: float | None = None
    sparse: float | None = None
    match: float | None = None
    rrf_k: int | None = None

    def over(self, defaults: FusionDefaults) -> Fusion:
        """The pack's own fusion with these changes."""
        fusion = Fusion.of_pack(defaults, self.method)
        dense, sparse = fusion.weights
        return replace(
            fusion,
            weights=(
                dense if self.dense is None else self.dense,
                sparse if self.sparse is None else self.sparse,
            ),
            match=fusion.match if self.match is None else self.match,
            rrf_k=fusion.rrf_k if self.rrf_k is None else self.rrf_k,
        )


@dataclass(frozen=True, slots=True)
class SystemPlan:
    """A system and where it runs.

    Attributes:
        system: its arms.
        pack: of the queries; None for a run file.
        to: URL of the index; None for a run file.
        fusion: changes of the pack's.
        candidates: of each arm.
        search: ``exact`` or ``engine``.
        run: a TREC run file, made elsewhere, that is measured in its place.
        retention_of: name of the system whose share it keeps; None finds the counterpart.
        sparse_pack, sparse_to: where the sparse arm is, if it is that of another pack and index
            of the same documents.
    """

    system: System
    pack: Path | None = None
    to: str | None = None
    fusion: FusionChange = FusionChange()
    candidates: int = EVALUATION_CANDIDATES
    search: str = EXACT
    run: Path | None = None
    retention_of: str | None = None
    sparse_pack: Path | None = None
    sparse_to: str | None = None

    def __post_init__(self) -> None:
        given = self.sparse_pack is not None, self.sparse_to is not None
        if any(given) and not (all(given) and self.system.dense and self.system.sparse):
            raise InputError(
                f"system {self.name!r} takes its sparse arm from elsewhere, but not whole",
                "give it a dense and a sparse arm, and both sparse_pack and sparse_to",
            )
        if self.search not in SEARCHES:
            raise InputError(
                f"unknown --search {self.search!r}", f"choose one of {', '.join(SEARCHES)}"
            )

    @property
    def name(self) -> str:
        """Of the system."""
        return self.system.name


@dataclass(frozen=True, slots=True)
class CollectionPlan:
    """A collection and its systems.

    Attributes:
        name: to be called by until it is read.
        read: gives the judged queries, or raises an ``InputError``.
        systems: what is compared on it, in the table's order.
        rename: what the collection is called in results; None: as it calls itself.
    """

    name: str
    read: Callable[[], JudgedQueries]
    systems: Sequence[SystemPlan]
    rename: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that one evaluation does.

    Attributes:
        collections: at least one.
        baseline: name of the system that the others are tested against; None is the first.
        measures: our names and ir-measures' names.
        testing: of the significance tests.
        tower: of the full models: what ``open_dense_encoder`` takes.
    """

    collections: Sequence[CollectionPlan]
    baseline: str | None = None
    measures: Mapping[str, str] = field(default_factory=lambda: dict(MEASURES))
    testing: SignificanceSettings = field(default_factory=SignificanceSettings)
    tower: Mapping[str, Any] = field(default_factory=dict)


def counterpart(plan: SystemPlan, systems: Sequence[SystemPlan]) -> str | None:
    """The system that a look-up system keeps a share of: itself with the full model.

    That is the one with the same other arms, feedback, fusion, candidates, index and search. Of
    several, the one of the same pack; else the first: tables of one space share a full model.
    """
    if plan.retention_of is not None:
        return plan.retention_of
    if plan.system.dense != LOOKUP:
        return None
    same = [other for other in systems if _but_for_the_model(plan, other)]
    of_pack = [other for other in same if other.pack == plan.pack]
    return next((other.name for other in (*of_pack, *same)), None)


def _but_for_the_model(plan: SystemPlan, other: SystemPlan) -> bool:
    system = replace(plan.system, name=other.name, dense=FULL)
    alike = replace(plan, system=system, pack=other.pack, retention_of=other.retention_of)
    return alike == other
