"""``steelyard eval``: systems over judged queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steelyard.cli.bench_sweeps import command_line
from steelyard.cli.evaluation_table import print_collection
from steelyard.cli.options import (
    AdapterMovedOption,
    DeviceOption,
    ModelMovedOption,
    PrecisionOption,
)
from steelyard.cli.output import JsonOption, RichProgress, write_json
from steelyard.errors import InputError
from steelyard.eval.systems import DEFAULT_SYSTEMS, FEEDBACK_DOCUMENTS

if TYPE_CHECKING:
    from steelyard.eval.carry_out import Outcome
    from steelyard.eval.plan import Plan, SystemPlan
    from steelyard.eval.results import CollectionResult
    from steelyard.eval.runs import Run

RUNS_HELP = "Write a TREC run file a system here; with --config in a folder a collection."


def evaluate_command(
    context: typer.Context,
    corpus: Annotated[
        str | None,
        typer.Argument(
            metavar="CORPUS", help="BEIR folder with queries and qrels, or ir_datasets:ID."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML of collections and systems, instead of CORPUS."),
    ] = None,
    pack: Annotated[
        Path | None, typer.Option("--pack", metavar="PACK", help="Query pack folder.")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="URL", help="Engine, as in 'index'.")
    ] = None,
    systems: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated; the first is the baseline of the test. "
            f"Default: {DEFAULT_SYSTEMS}, with the pack's sparse kind."
        ),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="The system of the test; default: the first.")
    ] = None,
    measures: Annotated[
        str | None,
        typer.Option(
            help="Of ir-measures, comma-separated; default: nDCG@10,R@100,R@1000,RR@10,AP."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="qrels/<split>.tsv.")] = "test",
    candidates: Annotated[
        int | None, typer.Option(min=1, help="Candidates of each arm; default: 1000.")
    ] = None,
    fusion: Annotated[
        str | None, typer.Option(help="min-max or rrf; default: the pack's.")
    ] = None,
    feedback: Annotated[
        int, typer.Option(min=1, help="Documents that refine a query.")
    ] = FEEDBACK_DOCUMENTS,
    search: Annotated[
        str,
        typer.Option(
            help="exact: in memory, over the vectors the engine stores; engine: its own search."
        ),
    ] = "exact",
    from_runs: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH", help="Measure TREC run files, or a folder of them; no index is needed."
        ),
    ] = None,
    qrels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Judgements of --from-runs, instead of CORPUS."),
    ] = None,
    runs: Annotated[Path | None, typer.Option(metavar="DIR", help=RUNS_HELP)] = None,
    model: ModelMovedOption = None,
    adapter: AdapterMovedOption = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = None,
    json: JsonOption = None,
) -> None:
    """Measure systems on judged queries: measures, retention, tests against the baseline."""
    tower = {"model": model, "adapter": adapter, "precision": precision, "device": device}
    if config is not None:
        _only(context, "config", "runs", "json", *tower)
        plan = _plan_of_file(config, {name for name in tower if _given(context, name)}, tower)
    elif from_runs:
        told = ("baseline", "measures", "json")
        _only(context, "corpus", "from_runs", "qrels", "split", *told)
        plan = _told(_plan_of_runs(corpus, split, qrels, from_runs), baseline, measures)
    elif corpus is None or pack is None or to is None:
        missing = "CORPUS" if corpus is None else "--pack" if pack is None else "--to"
        raise InputError(
            f"{missing} is missing", "give CORPUS, --pack and --to; or --config; or --from-runs"
        )
    else:
        _only(context, *(set(context.params) - {"config", "from_runs", "qrels"}))
        planned = plan_systems(
            pack, to, systems, fusion=fusion, candidates=candidates, feedback=feedback,
            search=search,
        )  # fmt: skip
        plan = _told(plan_collection(corpus, split, planned, tower), baseline, measures)
    evaluate_and_tell(plan, runs=runs, nested=config is not None, json=json).complain()


def evaluate_and_tell(
    plan: Plan, *, runs: Path | None = None, nested: bool = False, json: Path | None = None
) -> Outcome:
    """Carry a plan out; print each collection's table, and write its files, once it is there.

    Args:
        plan: what.
        runs: folder of the TREC run files; None writes none.
        nested: a folder in it for each collection.
        json: file of the result; None writes none.
    """
    from steelyard.eval.carry_out import carry_out
    from steelyard.eval.results import EvaluationResult, package_versions
    from steelyard.eval.runs import file_names, write_trec

    done: list[CollectionResult] = []
    folders = file_names([collection.name for collection in plan.collections])

    def keep(result: EvaluationResult) -> None:
        made = {"command": command_line(), "test": asdict(plan.testing)}
        write_json({**result.to_dict(), **made}, json)

    def finished(collection: CollectionResult, found: Sequence[Run]) -> None:
        print_collection(collection, plan.testing.confidence)
        done.append(collection)
        keep(EvaluationResult(done, {}, package_versions()))
        if runs is None:
            return
        folder = runs / folders.get(collection.collection, "runs") if nested else runs
        folder.mkdir(parents=True, exist_ok=True)
        names = file_names([run.system for run in found])
        for run in found:
            write_trec(run, folder / f"{names[run.system]}.trec")

    outcome = carry_out(plan, RichProgress(), finished)
    keep(outcome.result)
    return outcome


def plan_systems(
    pack: Path,
    to: str,
    systems: str | None = None,
    *,
    fusion: str | None = None,
    candidates: int | None = None,
    feedback: int = FEEDBACK_DOCUMENTS,
    search: str = "exact",
) -> list[SystemPlan]:
    """Systems by name over one pack and index; None is the default of each."""
    from steelyard.encoders.pack.files import read_metadata
    from steelyard.eval.evaluate import EVALUATION_CANDIDATES
    from steelyard.eval.plan import FusionChange, SystemPlan
    from steelyard.eval.systems import default_systems, parse_systems

    metadata = read_metadata(pack)
    change = FusionChange(fusion)
    change.over(metadata.fusion)
    return [
        SystemPlan(system, pack, to, change, candidates or EVALUATION_CANDIDATES, search=search)
        for system in parse_systems(systems or default_systems(metadata.sparse.kind), feedback)
    ]


def plan_collection(
    corpus: str, split: str, systems: Sequence[SystemPlan], tower: dict[str, Any]
) -> Plan:
    """One collection, whose first system is the baseline."""
    from steelyard.eval.collection import judged_queries
    from steelyard.eval.plan import CollectionPlan, Plan

    read = partial(judged_queries, corpus, split)
    return Plan([CollectionPlan(f"{corpus} {split}", read, systems)], tower=tower)


def _plan_of_file(path: Path, given: set[str], tower: dict[str, Any]) -> Plan:
    """The file's plan; what is said of the tower on the command line goes before."""
    from dataclasses import replace

    from steelyard.eval.systems_file import read_systems_file

    plan = read_systems_file(path)
    return replace(plan, tower={**plan.tower, **{name: tower[name] for name in given}})


def _told(plan: Plan, baseline: str | None, measures: str | None) -> Plan:
    """The plan with another baseline and other measures; None leaves them."""
    from dataclasses import replace

    from steelyard.eval.measures import named_measures

    names = [system.name for system in plan.collections[0].systems]
    if baseline is not None and baseline not in names:
        raise InputError(f"no system {baseline!r} for a baseline", f"known: {', '.join(names)}")
    wanted = plan.measures if measures is None else named_measures(measures.split(","))
    return replace(plan, baseline=baseline, measures=wanted)


def _plan_of_runs(
    corpus: str | None, split: str, qrels: Path | None, places: Sequence[Path]
) -> Plan:
    """TREC run files as systems, by their names."""
    from steelyard.eval.collection import judged_queries, read_qrels_only
    from steelyard.eval.plan import CollectionPlan, Plan, SystemPlan
    from steelyard.eval.runs import run_files, run_name
    from steelyard.eval.systems import System, full_name

    if corpus is not None and qrels is None:
        read = partial(judged_queries, corpus, split)
    elif qrels is not None and corpus is None:
        read = partial(read_qrels_only, qrels)
    else:
        raise InputError(
            "--from-runs needs judgements, from one place",
            "give a judged CORPUS or --qrels FILE",
        )
    files = [file for place in places for file in run_files(place)]
    names = [run_name(file) for file in files]
    if not files or len(set(names)) != len(names):
        raise InputError(
            f"{len(files)} run files, {len(set(names))} names of systems",
            "name a folder of TREC run files, each with a name of its own",
        )
    systems = [
        SystemPlan(System(name, None, None), run=file, retention_of=full_name(name, names))
        for name, file in zip(names, files, strict=True)
    ]
    return Plan([CollectionPlan(str(corpus or qrels), read, systems)])


def _given(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _only(context: typer.Context, *allowed: str) -> None:
    """Refuse options that would be passed over."""
    other = sorted(n for n in context.params if n not in allowed and _given(context, n))
    if other:
        shown = "CORPUS" if other[0] == "corpus" else f"--{other[0].replace('_', '-')}"
        raise InputError(
            f"{shown} has no meaning here",
            "it goes with CORPUS, --pack and --to alone; in --config it is said in the file",
        )
