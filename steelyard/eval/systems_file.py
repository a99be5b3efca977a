"""``eval --config systems.yaml``: collections, systems and tests in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from steelyard.errors import InputError, needs_extra
from steelyard.eval.collection import judged_queries, qrels_name, read_qrels_only
from steelyard.eval.evaluate import EVALUATION_CANDIDATES
from steelyard.eval.measures import MEASURES, named_measures
from steelyard.eval.plan import CollectionPlan, FusionChange, Plan, SystemPlan
from steelyard.eval.significance import SignificanceSettings
from steelyard.eval.systems import FEEDBACK_DOCUMENTS, System, parse_system
from steelyard.eval.yaml_places import Place, read_yaml
from steelyard.indexer.reading.ir_datasets_source import IR_DATASETS
from steelyard.plugin.engine import DENSE, MATCH, SPARSE
from steelyard.plugin.urls import relative_to

with needs_extra("eval"):
    from pydantic import (
        BaseModel,
        ConfigDict,
        Field,
        ValidationError,
        field_validator,
        model_validator,
    )

COLLECTION = "{collection}"
"""Stands in ``pack``, ``to`` and ``run`` for the collection's name."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Weights(_Strict):
    dense: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    sparse: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    match: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class _Fusion(_Strict):
    method: Literal["min-max", "rrf"] | None = None
    weights: _Weights = _Weights()
    rrf_k: int | None = Field(default=None, ge=1)

    def change(self) -> FusionChange:
        weights = self.weights
        return FusionChange(self.method, weights.dense, weights.sparse, weights.match, self.rrf_k)


class _Where(_Strict):
    """What may stand at the top, be changed by a collection, and again by a system."""

    pack: str | None = None
    to: str | None = None
    candidates: int | None = Field(default=None, ge=1)
    search: Literal["exact", "engine"] | None = None
    fusion: _Fusion | None = None


class _System(_Where):
    name: str = Field(min_length=1)
    dense: Literal["full", "lookup", "none"] = "none"
    sparse: Literal["bm25", "lm-head", "none"] = "none"
    match: bool = False
    feedback: int = Field(default=0, ge=0)
    run: str | None = None
    retention_of: str | None = None
    sparse_pack: str | None = None
    sparse_to: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        """``lookup+bm25`` alone is a system, as on the command line."""
        if not isinstance(value, str):
            return value
        system = _parsed(value)
        return {
            "name": value,
            DENSE: system.dense or "none",
            SPARSE: system.sparse or "none",
            MATCH: system.match,
            "feedback": system.feedback,
        }

    @field_validator("dense", "sparse", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        return "none" if value is None else value

    @model_validator(mode="after")
    def _complete(self) -> _System:
        arms = self.dense != "none", self.sparse != "none", self.match
        if self.run is not None and (any(arms) or self.feedback):
            raise ValueError(f"{self.name!r} is a run file: it has no arms to choose")
        if self.run is None and not any(arms):
            raise ValueError(f"{self.name!r} has no arm: give dense, sparse, match, or run")
        if self.feedback and self.dense == "none":
            raise ValueError(f"{self.name!r}: feedback needs a dense arm")
        elsewhere = self.sparse_pack, self.sparse_to
        if any(elsewhere) and not (all(elsewhere) and arms[0] and arms[1]):
            raise ValueError(
                f"{self.name!r}: sparse_pack and sparse_to go together, with dense and sparse"
            )
        return self

    def system(self) -> System:
        dense = None if self.dense == "none" else self.dense
        sparse = None if self.sparse == "none" else self.sparse
        return System(self.name, dense, sparse, self.feedback, self.match)


class _Collection(_Where):
    beir: str | None = None
    split: str = "test"
    ir_datasets: str | None = None
    qrels: str | None = None
    name: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_source(self) -> _Collection:
        if sum(one is not None for one in (self.beir, self.ir_datasets, self.qrels)) != 1:
            raise ValueError("give one of beir (a folder), ir_datasets (an id), qrels (a file)")
        return self


class _Testing(_Strict):
    resamples: int = Field(default=10_000, ge=1)
    seed: int = Field(default=0, ge=0)
    confidence: float = Field(default=0.95, gt=0, lt=1)


class _Tower(_Strict):
    model: str | None = None
    adapter: str | None = None
    precision: str = "auto"
    device: str | None = None


class _File(_Where):
    collections: list[_Collection] = Field(min_length=1)
    systems: list[_System] = Field(min_length=1)
    baseline: str | None = None
    measures: list[str] = list(MEASURES.values())
    test: _Testing = _Testing()
    tower: _Tower = _Tower()

    @model_validator(mode="after")
    def _names(self) -> _File:
        names = [system.name for system in self.systems]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"two systems are called {repeated[0]!r}")
        for wanted in (self.baseline, *(system.retention_of for system in self.systems)):
            if wanted is not None and wanted not in names:
                raise ValueError(f"no system is called {wanted!r}; there are {', '.join(names)}")
        return self


def read_systems_file(path: Path) -> Plan:
    """A plan from a YAML file; paths in it are relative to the file.

    Raises:
        InputError: it cannot be read, or a key or value in it is none; with its line.
        MissingExtraError: pydantic or PyYAML are not installed.
    """
    value, lines = read_yaml(path)
    if not isinstance(value, dict):
        raise InputError(f"{path} is no mapping", "it needs collections: and systems:")
    try:
        file = _File.model_validate(value)
    except ValidationError as error:
        raise _explained(error, path, lines) from error
    folder = path.resolve().parent
    collections = [_collection(one, file, folder) for one in file.collections]
    names = [collection.name for collection in collections]
    for position, name in enumerate(names):
        if name in names[:position]:
            line = lines.get(("collections", position), 1)
            raise InputError(
                f"{path}, line {line}: two collections are called {name!r}",
                "give one of them a name: of its own",
            )
    return Plan(
        collections,
        file.baseline,
        named_measures(file.measures),
        SignificanceSettings(**file.test.model_dump()),
        file.tower.model_dump(),
    )


def _collection(one: _Collection, file: _File, folder: Path) -> CollectionPlan:
    if one.ir_datasets is not None:
        default = one.ir_datasets
        read = partial(judged_queries, IR_DATASETS + one.ir_datasets)
    elif one.beir is not None:
        beir = _within(folder, one.beir)
        default = f"{beir.name}/{one.split}"
        read = partial(judged_queries, beir, one.split)
    else:
        qrels = _within(folder, str(one.qrels))
        default = qrels_name(qrels)
        read = partial(read_qrels_only, qrels)
    # An id of ir_datasets does not say which of its parts is a split.
    whole = default.replace("/", "-") if one.ir_datasets else default.split("/")[0]
    short = one.name or whole
    systems = [_system(system, (system, one, file), short, folder) for system in file.systems]
    return CollectionPlan(one.name or default, read, systems, one.name)


def _system(
    system: _System, places: Sequence[_Where], collection: str, folder: Path
) -> SystemPlan:
    """A system with what it does not say itself from its collection, and else from the top."""

    def said(name: str) -> Any:
        found = (getattr(place, name) for place in places)
        return next((one for one in found if one is not None), None)

    def filled(text: str | None) -> str | None:
        return None if text is None else text.replace(COLLECTION, collection)

    pack, to, run = filled(said("pack")), filled(said("to")), filled(system.run)
    sparse_pack, sparse_to = filled(system.sparse_pack), filled(system.sparse_to)
    fusion: _Fusion | None = said("fusion")
    return SystemPlan(
        system.system(),
        pack=None if pack is None or run else _within(folder, pack),
        to=None if to is None or run else relative_to(to, folder),
        fusion=FusionChange() if fusion is None else fusion.change(),
        candidates=said("candidates") or EVALUATION_CANDIDATES,
        search=said("search") or "exact",
        run=None if run is None else _within(folder, run),
        retention_of=system.retention_of,
        sparse_pack=None if sparse_pack is None else _within(folder, sparse_pack),
        sparse_to=None if sparse_to is None else relative_to(sparse_to, folder),
    )


def _within(folder: Path, text: str) -> Path:
    try:
        return folder / Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(f"no path {text!r}: {error}", "write the folder out") from error


def _parsed(name: str) -> System:
    try:
        return parse_system(name, FEEDBACK_DOCUMENTS)
    except InputError as error:
        raise ValueError(str(error)) from error


def _explained(error: ValidationError, path: Path, lines: Mapping[Place, int]) -> InputError:
    """The first unknown key, else the first thing that is wrong; where, and what is right."""
    errors = error.errors(include_url=False)
    found = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    place: Place = tuple(found["loc"])
    line = next(lines[place[:n]] for n in range(len(place), -1, -1) if place[:n] in lines)
    shown = "".join(f"[{p + 1}]" if isinstance(p, int) else f".{p}" for p in place).lstrip(".")
    where = f"{path}, line {line}" + (f", {shown}" if shown else "")
    if found["type"] == "extra_forbidden":
        known = ", ".join(_model_at(place[:-1]).model_fields)
        return InputError(f"{where}: unknown key {place[-1]!r}", f"known here: {known}")
    reason = found["msg"].removeprefix("Value error, ")
    return InputError(f"{where}: {reason[:1].lower()}{reason[1:]}", "see docs/evaluation.md")


def _model_at(place: Place) -> type[BaseModel]:
    """Which part of the file a place is in."""
    parts: dict[Any, type[BaseModel]] = {
        "collections": _Collection,
        "systems": _System,
        "fusion": _Fusion,
        "weights": _Weights,
        "test": _Testing,
        "tower": _Tower,
    }
    return next((parts[name] for name in reversed(place) if name in parts), _File)
