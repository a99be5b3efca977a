"""A plan carried out: packs and engines opened, systems measured, compared, told.

What fails is kept apart: a collection or a system that cannot be measured does not take the
others with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from steelyard.encoders.documents.from_pack import open_dense_encoder
from steelyard.encoders.documents.protocol import FullModel
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import EngineError, InputError, InterruptedJobError, SteelyardError
from steelyard.eval.collection import JudgedQueries
from steelyard.eval.comparison import system_rows
from steelyard.eval.encodings import FullQueries, PackQueries, encoder_key
from steelyard.eval.evaluate import Arms, SystemResult, measured_run, min_depth
from steelyard.eval.plan import EXACT, RUNS, CollectionPlan, Plan, SystemPlan, counterpart
from steelyard.eval.results import CollectionResult, EvaluationResult, package_versions
from steelyard.eval.runs import Run, cut_at, make_run, read_trec
from steelyard.plugin.engine import Engine, Generation, SearchIndex
from steelyard.plugin.exact import ExactIndex
from steelyard.plugin.fusion import Fusion
from steelyard.plugin.packs import check_spaces
from steelyard.plugin.urls import open_engine
from steelyard.progress import Progress

Finished = Callable[[CollectionResult, Sequence[Run]], None]


class IncompleteEvaluationError(SteelyardError):
    """Some of what was asked for could not be measured; the rest is there.

    Args:
        failures: what -> why, at least one; the exit code is the first one's.
    """

    def __init__(self, failures: Mapping[str, SteelyardError]) -> None:
        what = "; ".join(f"{name} ({error.message})" for name, error in failures.items())
        hints = dict.fromkeys(error.hint for error in failures.values() if error.hint)
        super().__init__(f"not measured: {what}", "; ".join(hints))
        self.exit_code = next(iter(failures.values())).exit_code


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was measured, and what was not.

    Attributes:
        result: all that was.
        failures: a collection's name, or ``system on collection`` -> why it was not.
    """

    result: EvaluationResult
    failures: Mapping[str, SteelyardError]

    def complain(self) -> None:
        """Raise an ``IncompleteEvaluationError`` when something was not measured."""
        if self.failures:
            raise IncompleteEvaluationError(self.failures)


def carry_out(plan: Plan, progress: Progress, finished: Finished) -> Outcome:
    """Measure every system on every collection.

    Args:
        plan: what.
        progress: shows the stages.
        finished: told of each collection as soon as it is measured, with its runs.

    Raises:
        SteelyardError: nothing at all could be measured.
    """
    towers = _Towers(plan.tower)
    measured: list[CollectionResult] = []
    failed: dict[str, str] = {}
    failures: dict[str, SteelyardError] = {}
    for collection in plan.collections:
        try:
            result, runs, missing = _measure_collection(collection, plan, towers, progress)
        except InterruptedJobError:
            raise
        except SteelyardError as error:
            failures[collection.name] = error
            failed[collection.name] = str(error)
            if len(plan.collections) > 1:
                progress.say(f"{collection.name} is not measured: {error}")
            continue
        failures |= {f"{name} on {result.collection}": error for name, error in missing.items()}
        measured.append(result)
        try:
            finished(result, runs)
        except InterruptedJobError:
            raise
        except SteelyardError as error:
            failures[f"files of {result.collection}"] = error
    if not measured and failures:
        raise next(iter(failures.values()))
    return Outcome(EvaluationResult(measured, failed, package_versions()), failures)


def _measure_collection(
    collection: CollectionPlan, plan: Plan, towers: _Towers, progress: Progress
) -> tuple[CollectionResult, list[Run], dict[str, SteelyardError]]:
    """The result, the runs, and the systems that could not be measured."""
    judged = collection.read()
    if collection.rename is not None:
        judged = replace(judged, name=collection.rename)
    if not judged.queries:
        raise InputError(f"{judged.name} has no judged queries", "choose another split")
    measured: dict[str, SystemResult] = {}
    settings: dict[str, dict[str, Any]] = {}
    failures: dict[str, SteelyardError] = {}
    with ExitStack() as closing:
        bench = _Bench(judged, plan, towers, progress, closing)
        with progress.stage(f"search {judged.name}", len(collection.systems)) as advance:
            for system in collection.systems:
                try:
                    measured[system.name], settings[system.name] = bench.measure(system)
                except InterruptedJobError:
                    raise
                except SteelyardError as error:
                    failures[system.name] = error
                    if len(collection.systems) > 1:
                        progress.say(f"{system.name} is not measured: {error}")
                advance(1)
        documents = bench.documents
    if not measured:
        raise next(iter(failures.values()))
    baseline = plan.baseline or collection.systems[0].name
    first = settings.get(baseline) or next(iter(settings.values()))
    fusions = [found["fusion"] for found in settings.values() if found.get("fusion")]
    feedback = [s.system.feedback for s in collection.systems if s.system.feedback]
    rows = system_rows(
        list(measured.values()),
        settings,
        baseline,
        {s.name: _counterpart(s, collection.systems, settings) for s in collection.systems},
        plan.testing,
    )
    result = CollectionResult(
        collection=judged.name,
        queries=[query.id for query in judged.queries],
        documents=documents,
        missing_queries=judged.missing,
        candidates=_common(
            [one["candidates"] for one in settings.values() if "candidates" in one]
        ),
        fusion=_common(fusions) or {},
        feedback=_common(feedback),
        search=first["search"],
        baseline=baseline,
        rows=rows,
        failed={name: str(error) for name, error in failures.items()},
    )
    return result, [one.run for one in measured.values()], failures


def _counterpart(
    plan: SystemPlan, systems: Sequence[SystemPlan], settings: Mapping[str, dict[str, Any]]
) -> str | None:
    """Of the systems that were fused alike: packs differ in weights where the plan is silent."""

    def fusion(system: SystemPlan) -> object:
        return settings.get(system.name, {}).get("fusion")

    return counterpart(plan, [other for other in systems if fusion(other) == fusion(plan)])


def _common(values: Sequence[Any]) -> Any:
    """What all have; None where they differ, or there are none."""
    return values[0] if values and all(one == values[0] for one in values) else None


class _Towers:
    """Full models, each opened once for all collections."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        self._open: dict[str, FullModel] = {}

    def of(self, queries: QueryEncoder) -> FullModel:
        key = encoder_key(queries.metadata)
        if key not in self._open:
            self._open[key] = open_dense_encoder(queries.metadata, **self._settings)
        return self._open[key]


class _Bench:
    """One collection's queries, packs and indexes; all are opened and encoded once."""

    def __init__(
        self,
        judged: JudgedQueries,
        plan: Plan,
        towers: _Towers,
        progress: Progress,
        closing: ExitStack,
    ) -> None:
        self._judged, self._plan, self._towers, self._progress = judged, plan, towers, progress
        self._texts = [query.text for query in judged.queries]
        self._closing = closing
        self._packs: dict[Path, PackQueries] = {}
        self._full: dict[str, FullQueries] = {}
        self._engines: dict[str, tuple[Engine, Generation]] = {}
        self._exact: dict[str, ExactIndex] = {}
        self._arms: dict[tuple[Path, str, str], Arms] = {}
        self.documents: int | None = None

    def measure(self, plan: SystemPlan) -> tuple[SystemResult, dict[str, Any]]:
        """A system's measures, and the settings it was measured with."""
        if plan.run is not None:
            return self._measure_run(plan, plan.run)
        if plan.pack is None or plan.to is None:
            missing = "pack" if plan.pack is None else "index"
            raise InputError(
                f"system {plan.name!r} has no {missing}",
                "name both with --pack and --to, or with pack: and to: in the file",
            )
        encoded = self._encoded(plan.pack)
        index = self._index(plan.to, encoded.queries, plan.search)
        other, sparse = None, None
        if plan.sparse_pack is not None and plan.sparse_to is not None:
            other = self._encoded(plan.sparse_pack)
            self._check_same_documents(plan, index, other)
            sparse = self._arms_of(plan.sparse_pack, plan.sparse_to, plan.search)
        (other or encoded).check(plan.system)
        fusion = plan.fusion.over(encoded.queries.metadata.fusion)
        arms = self._arms_of(plan.pack, plan.to, plan.search)
        rankings = arms.answer(plan.system, fusion, plan.candidates, sparse)
        run = make_run(plan.name, self._judged.queries, rankings)
        result = measured_run(
            plan.system,
            run,
            self._judged,
            self._plan.measures,
            min_depth(plan.candidates, index),
            encoded.queries_per_second(plan.system, other),
        )
        self.documents = self.documents or index.count()
        return result, self._settings(plan, encoded, fusion, index)

    def _arms_of(self, pack: Path, to: str, search: str) -> Arms:
        key = (pack, to, search)
        if key not in self._arms:
            encoded = self._encoded(pack)
            matching = self._index(to, encoded.queries, "engine")
            index = self._index(to, encoded.queries, search)
            self._arms[key] = Arms(index, encoded, matching)
        return self._arms[key]

    def _check_same_documents(
        self, plan: SystemPlan, index: SearchIndex, other: PackQueries
    ) -> None:
        sparse = self._index(str(plan.sparse_to), other.queries, plan.search)
        if index.count() != sparse.count():
            raise InputError(
                f"system {plan.name!r}: the dense arm's index holds {index.count():,} documents, "
                f"the sparse arm's {sparse.count():,}",
                "index the same corpus in both",
            )

        if isinstance(index, ExactIndex) and isinstance(sparse, ExactIndex):
            ids = [{document.id for document in one.export().documents} for one in (index, sparse)]
            apart = ids[0] ^ ids[1]
            if apart:
                raise InputError(
                    f"system {plan.name!r}: {len(apart):,} documents are in one arm's index only, "
                    f"{min(apart)!r} among them",
                    "index the same corpus in both",
                )

    def _settings(
        self, plan: SystemPlan, encoded: PackQueries, fusion: Fusion, index: SearchIndex
    ) -> dict[str, Any]:
        system = plan.system
        arms = sum(map(bool, (system.dense, system.sparse, system.match)))
        return {
            "dense": system.dense,
            "sparse": system.sparse,
            "match": system.match,
            "feedback": system.feedback,
            "candidates": plan.candidates,
            "search": plan.search,
            "fusion": asdict(fusion) | {"weights": list(fusion.weights)} if arms > 1 else None,
            "pack": str(plan.pack),
            "pack_id": encoded.queries.metadata.pack_id,
            "index": index.generation.name,
            **({} if plan.sparse_pack is None else {"sparse_pack": str(plan.sparse_pack)}),
        }

    def _measure_run(self, plan: SystemPlan, path: Path) -> tuple[SystemResult, dict[str, Any]]:
        run = replace(read_trec(path), system=plan.name)
        judged = {query.id for query in self._judged.queries}
        answered = judged & set(run.scores)
        if not answered:
            raise InputError(
                f"no query of {path} is judged in {self._judged.name}: its first is "
                f"{next(iter(run.scores))!r}, the first judged is {self._judged.queries[0].id!r}",
                "give the run of this collection and split",
            )
        known = {document: True for found in self._judged.qrels.values() for document in found}
        if not any(document in known for query in answered for document in run.scores[query]):
            raise InputError(
                f"no document of {path} is judged in {self._judged.name}: its first is "
                f"{next(iter(run.scores[next(iter(answered))]))!r}, a judged one is "
                f"{next(iter(known))!r}",
                "look whether the document ids are the collection's",
            )
        if len(answered) < len(judged):
            self._progress.say(
                f"{plan.name} answers {len(answered):,} of {len(judged):,} judged queries; "
                "the others count 0"
            )
        measures = self._plan.measures
        result = measured_run(plan.system, run, self._judged, measures, cut_at(run))
        return result, {"search": RUNS, "run": str(path), "answered": len(answered)}

    def _encoded(self, pack: Path) -> PackQueries:
        if pack not in self._packs:
            queries = QueryEncoder.load(pack)
            key = encoder_key(queries.metadata)
            if key not in self._full:
                self._full[key] = FullQueries(
                    self._texts, lambda: self._towers.of(queries), self._progress
                )
            self._packs[pack] = PackQueries(queries, self._texts, self._full[key])
        return self._packs[pack]

    def _index(self, to: str, queries: QueryEncoder, search: str) -> SearchIndex:
        if to not in self._engines:
            engine = open_engine(to, must_exist=True, vocabulary=queries.tokenizer)
            self._closing.callback(engine.close)
            generation = engine.resolve()
            if generation is None:
                raise EngineError(
                    f"no index {engine.alias!r} in {to}", "run 'steelyard index' first"
                )
            self._engines[to] = engine, generation
        engine, generation = self._engines[to]
        check_spaces(queries.metadata.spaces, generation)
        index = engine.open(generation, queries.tokenizer)
        if search != EXACT:
            return index
        if to not in self._exact:
            with self._progress.stage("read the stored vectors"):
                self._exact[to] = ExactIndex(generation, index.export())
        return self._exact[to]
