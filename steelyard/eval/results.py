"""What an evaluation found, as JSON of format 1: made by ``eval``, read by ``report``."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from steelyard.encoders.pack.json_fields import read_dataclass
from steelyard.errors import InputError, PackError

FORMAT = 1
MEASURES = ("ndcg@10", "recall@100", "recall@1000", "rr@10", "ap")
"""The measures of a row where nobody chooses others, in the order of the table's columns."""

_DECIMALS = 6
_PACKAGES = ("steelyard", "numpy", "scipy", "ir-measures", "tokenizers", "torch", "transformers")
_REMEDY = "make it again with 'steelyard eval --json FILE'"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One system against the baseline of its collection, in nDCG@10, query by query.

    Attributes:
        difference: mean of system less baseline.
        low, high: 95 % percentile bootstrap interval of that mean.
        p_value: two-sided paired t-test.
        p_holm: the same after Holm's correction over all systems of the collection.
        wins, ties, losses: queries where the system is better, equal, worse.
    """

    difference: float
    low: float
    high: float
    p_value: float
    p_holm: float
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True, slots=True)
class SystemRow:
    """One system on one collection.

    Attributes:
        system: its name.
        means: by measure, those of ``MEASURES`` unless others were asked for; None where the run
            is not deep enough for it.
        encode_qps: queries encoded a second; None where that was not timed.
        by_query: of each measure, the values in the order of the collection's queries.
        retention: nDCG@10 as a share of its full counterpart's; None without a counterpart.
        retention_low, retention_high: 95 % percentile bootstrap interval of that share.
        retention_of: name of the counterpart: the same system with the full model.
        against_baseline: None for the baseline itself.
        settings: how it was made: pack, index, arms, fusion, candidates, search.
    """

    system: str
    means: dict[str, float | None]
    encode_qps: float | None = None
    by_query: dict[str, list[float]] = field(default_factory=dict)
    retention: float | None = None
    retention_low: float | None = None
    retention_high: float | None = None
    retention_of: str | None = None
    against_baseline: Comparison | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON: the means stand beside the name."""
        value = asdict(self)
        del value["means"], value["system"]
        rounded = {
            name: [round(one, _DECIMALS) for one in values]
            for name, values in self.by_query.items()
        }
        means = {
            name: None if mean is None else round(mean, _DECIMALS)
            for name, mean in self.means.items()
        }
        return {"system": self.system, **means, **value, "by_query": rounded}


@dataclass(frozen=True, slots=True)
class CollectionResult:
    """All systems on the judged queries of one collection.

    Attributes:
        collection: name and split, such as ``scifact/test``.
        queries: ids, in the order of ``by_query``.
        documents: in the first system's index; None where only run files were read.
        missing_queries: judged, but without a text: not measured.
        candidates: of each arm; None where systems differ: see their ``settings``.
        fusion: method, weights, rrf_k, match; empty where systems differ.
        feedback: documents that refine a query, of the systems that ask; None where they differ.
        search: ``exact``, ``engine`` or ``runs``.
        baseline: name of the system that the others are compared with; where it is in
            ``failed`` there is no comparison.
        rows: one a system.
        failed: name of a system that could not be measured here -> why.
    """

    collection: str
    queries: list[str]
    documents: int | None
    missing_queries: int
    candidates: int | None
    fusion: dict[str, Any]
    feedback: int | None
    search: str
    baseline: str
    rows: list[SystemRow]
    failed: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        shallow = replace(self, rows=[])
        return {**asdict(shallow), "rows": [row.to_dict() for row in self.rows]}

    def row(self, system: str) -> SystemRow:
        """The row of a system.

        Raises:
            InputError: there is none.
        """
        found = next((row for row in self.rows if row.system == system), None)
        if found is None:
            known = ", ".join(row.system for row in self.rows)
            raise InputError(f"no system {system!r} in {self.collection}", f"known: {known}")
        return found


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """Everything that one ``steelyard eval`` measured.

    Attributes:
        collections: those that could be measured, in the order asked for.
        failed: name of a collection that could not be measured -> why.
        versions: of the packages that decide the figures.
    """

    collections: list[CollectionResult]
    failed: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "format": FORMAT,
            "collections": [collection.to_dict() for collection in self.collections],
            "failed": self.failed,
            "versions": self.versions,
        }

    @classmethod
    def from_dict(cls, value: Any, where: str = "the result") -> EvaluationResult:
        """Read what ``to_dict`` wrote.

        Args:
            value: what ``json.loads`` gave.
            where: file, for messages.

        Raises:
            InputError: something else, or of another format.
        """
        if not isinstance(value, Mapping) or "collections" not in value:
            raise InputError(f"{where} is no result of an evaluation", _REMEDY)
        if value.get("format") != FORMAT:
            raise InputError(
                f"{where} is of format {value.get('format')!r}, this version reads {FORMAT}",
                _REMEDY,
            )
        try:
            collections = [
                _read_collection(one, f"{where}: collections[{position}]")
                for position, one in enumerate(_list(value["collections"], where))
            ]
            failed, versions = value.get("failed", {}), value.get("versions", {})
            return read_dataclass(
                cls, {"collections": [], "failed": failed, "versions": versions}, where
            )._with(collections)
        except PackError as error:
            raise InputError(error.message, _REMEDY) from error

    def _with(self, collections: list[CollectionResult]) -> EvaluationResult:
        return replace(self, collections=collections)


def read_result(path: Path) -> EvaluationResult:
    """The result that ``steelyard eval --json`` wrote.

    Raises:
        InputError: no such file, no JSON, or no result.
    """
    if not path.is_file():
        raise InputError(f"no result at {path}", _REMEDY)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON: {error}", _REMEDY) from error
    return EvaluationResult.from_dict(value, str(path))


def package_versions() -> dict[str, str]:
    """Python and those packages, of the ones that decide the figures, that are installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _read_collection(value: Any, where: str) -> CollectionResult:
    if not isinstance(value, Mapping):
        raise PackError(f"{where}: expected an object, found {type(value).__name__}")
    rows = [
        _read_row(row, len(_list(value.get("queries"), where)), f"{where}: rows[{position}]")
        for position, row in enumerate(_list(value.get("rows"), f"{where}: rows"))
    ]
    found = read_dataclass(CollectionResult, {**value, "rows": []}, where)
    names = [row.system for row in rows]
    if len(set(names)) != len(names):
        raise PackError(f"{where}: a system twice in {', '.join(names)}")
    return replace(found, rows=rows)


def _read_row(value: Any, queries: int, where: str) -> SystemRow:
    if not isinstance(value, Mapping):
        raise PackError(f"{where}: expected an object, found {type(value).__name__}")
    known = {one.name for one in fields(SystemRow)} - {"means"}
    rest = {name: one for name, one in value.items() if name in known}
    means = {name: one for name, one in value.items() if name not in known}
    found = read_dataclass(SystemRow, {**rest, "means": means}, where)
    for name, values in found.by_query.items():
        if len(values) != queries:
            raise PackError(
                f"{where}: by_query {name} has {len(values)} values for {queries} queries"
            )
    return found


def _list(value: Any, where: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise PackError(f"{where}: expected a list, found {type(value).__name__}")
    return value
