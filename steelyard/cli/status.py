"""``steelyard status``: how a job stands, or an index."""

from __future__ import annotations

import json as json_text
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from steelyard.cli.output import console, print_pairs, print_rows
from steelyard.errors import InputError

_RUNS = "running"


def status(
    shards: Annotated[
        Path | None,
        typer.Argument(metavar="[SHARDS]", help="Folder of shards; default: all in the cache."),
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="URL", help="Show this index instead.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on standard output.")
    ] = False,
) -> None:
    """Show a running or dead job, what is missing, and what continues it; or an index."""
    if to is not None:
        if shards is not None:
            raise InputError("a folder of shards and --to were given", "give one of them")
        _index(to, json)
        return
    from steelyard.indexer.reporting.job_status import cached_folders, folder_status

    folders = cached_folders() if shards is None else [shards]
    found = []
    for folder in folders:
        try:
            found.append(folder_status(folder))
        except InputError:
            if shards is not None:
                raise
    if json:
        _say_json({"folders": [each.as_json() for each in found]})
        return
    for each in found:
        _print_folder(each)
    if not found:
        console.print("no job in the cache; give a folder of shards, or --to URL", markup=False)


def _print_folder(found: Any) -> None:
    from steelyard.indexer.reporting.times import duration, seconds_since

    rows: dict[str, Any] = {"folder": found.folder}
    for record, seen in found.jobs:
        rows[f"job {record.id}"] = (
            f"{seen}: {record.command}, process {record.pid} on {record.host}, "
            f"began {record.started[:19]}Z, last word "
            f"{duration(max(0.0, seconds_since(record.heartbeat)))} ago"
            + ("" if record.exit_code is None else f", exit code {record.exit_code}")
        )
    if found.shards is not None:
        state = "complete" if found.shards.complete else "not complete"
        rows["shards"] = (
            f"{found.shards.shards:,}, {found.shards.documents:,} documents, "
            f"{found.shards.rejected:,} rejected, {state}"
        )
    for sink in found.sinks:
        steps = ", ".join(sink.steps)
        rows[str(sink.generation or sink.journal)] = f"{sink.shards:,} shards loaded" + (
            f", {steps}" if steps else ""
        )
    for number, what in enumerate(found.missing):
        rows["missing" if number == 0 else " " * number] = what
    if found.continue_with:
        rows["continue with"] = found.continue_with
    print_pairs(rows)
    for record, seen in found.jobs:
        if seen == _RUNS and record.stages:
            print_rows(
                f"job {record.id}",
                ["stage", "done", "of", "a second", "to go"],
                [
                    [
                        stage.name,
                        f"{stage.done:,}",
                        "" if stage.total is None else f"{stage.total:,}",
                        "" if stage.rate is None else f"{stage.rate:,.1f}",
                        "done"
                        if stage.ended
                        else ("" if stage.eta_seconds is None else duration(stage.eta_seconds)),
                    ]
                    for stage in record.stages
                ],
            )
            for name, count in record.counters.items():
                if count:
                    console.print(f"  {name} {count:,}", markup=False)
    console.print()


def _index(to: str, as_json: bool) -> None:
    from steelyard.indexer.reporting.index_status import index_status
    from steelyard.plugin.urls import open_engine

    engine = open_engine(to, must_exist=True)
    try:
        found = index_status(engine, to)
    finally:
        engine.close()
    if as_json:
        _say_json(found.as_json())
        return
    records = found.records
    rows: dict[str, Any] = {"alias": found.alias}
    if found.current is not None:
        rows["current"] = found.current.name
    if records is not None:
        shared = "" if records.shared else " (this machine alone)"
        rows["records"] = records.where + shared
        rows["log of changes"] = (
            f"{records.first_sequence:,} to {records.last_sequence:,}"
            if records.last_sequence >= records.first_sequence
            else f"empty, {records.last_sequence:,} so far"
        )
        for key, value in records.records.items():
            if not key.startswith("generation-"):
                rows[key] = _shown(value)
    for number, what in enumerate(found.missing):
        rows["missing" if number == 0 else " " * number] = what
    print_pairs(rows)
    print_rows(
        "",
        ["generation", "documents", "pack", "changes", ""],
        [
            [
                each.name,
                "?" if each.count is None else f"{each.count:,}",
                each.pack_id,
                "" if (at := records.position(each.name)) is None else f"{at:,}",
                "published" if each.published else "",
            ]
            for each in found.generations
        ],
    )


def _shown(value: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {part}" for name, part in value.items() if name != "token")


def _say_json(value: Any) -> None:
    typer.echo(json_text.dumps(value, indent=2, ensure_ascii=False, default=str))
