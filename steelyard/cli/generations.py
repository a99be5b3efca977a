"""``steelyard generations``, ``rollback`` and ``gc``: what is kept beside the current index."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from steelyard.cli.options import EngineOption
from steelyard.cli.output import (
    JsonOption,
    RichProgress,
    print_pairs,
    print_rows,
    status,
    write_json,
)
from steelyard.errors import InputError

if TYPE_CHECKING:
    from steelyard.indexer.generations.rollback import Replay
    from steelyard.plugin.engine import Engine, Generation
    from steelyard.plugin.records import RecordStore

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def generations(to: EngineOption, json: JsonOption = None) -> None:
    """List all generations of an index, newest first."""
    from steelyard.indexer.generations.listing import job_of, listing

    engine, store = _opened(to)
    try:
        found, job = listing(engine, store), job_of(store)
    finally:
        engine.close()
    rows = [
        [
            one.name,
            one.state,
            "" if one.documents is None else f"{one.documents:,}",
            one.pack.removeprefix("pack-")[:8],
            "" if one.behind is None else f"{one.behind:,}",
            (one.off or one.published)[:16].replace("T", " "),
        ]
        for one in found
    ]
    columns = ["generation", "state", "documents", "pack", "lacks", "since"]
    print_rows(engine.alias, columns, rows)
    if job:
        _say(f"the job lease is held by {job}")
    if not store.shared:
        _say(f"leases, positions and the log are in {store.where}, for this machine alone")
    write_json({"generations": [asdict(one) for one in found], "job": job}, json)


def rollback(
    to: EngineOption,
    generation: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Default: the one searched before the current."),
    ] = None,
    accept_stale: Annotated[
        bool, typer.Option("--accept-stale", help="Go back also without changes since.")
    ] = False,
    pack: Annotated[
        list[Path] | None,
        typer.Option(metavar="PACK", help="Query pack, to replay changes; more than once."),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Make an older generation the current one again, with the changes since."""
    from steelyard.indexer.generations.rollback import rollback as go_back

    engine, store = _opened(to)
    try:
        done = go_back(
            engine,
            store,
            _replay(to, store, pack or []),
            to=generation,
            accept_stale=accept_stale,
            say=_say,
        )
    finally:
        engine.close()
    missing = "unknown" if done.missing is None else f"{done.missing:,}"
    print_pairs(
        {
            "was": done.before,
            "is now": done.after,
            "changes replayed": f"{done.replayed:,}",
            "changes missing": missing,
        }
    )
    write_json(asdict(done), json)


def gc(
    to: EngineOption,
    keep: Annotated[int, typer.Option(min=0, help="Older generations to keep.")] = 1,
    grace: Annotated[
        str, typer.Option(metavar="TIME", help="Since a generation was switched off; 50s or more.")
    ] = "60s",
    keep_changes: Annotated[
        str, typer.Option(metavar="TIME", help="Changes younger than this stay in the log.")
    ] = "30d",
    dry_run: DryRunOption = False,
    json: JsonOption = None,
) -> None:
    """Drop older generations, what dead jobs left behind, and old changes."""
    from steelyard.indexer.generations.gc import MIN_GRACE_SECONDS, sweep

    seconds = duration(grace)
    if seconds < MIN_GRACE_SECONDS:
        raise InputError(
            f"--grace is {seconds:g} s, searchers need up to {MIN_GRACE_SECONDS:g} s to leave a "
            "generation",
            f"give {MIN_GRACE_SECONDS:g}s or more",
        )
    engine, store = _opened(to)
    try:
        done = sweep(
            engine,
            store,
            keep=keep,
            grace=seconds,
            keep_changes=timedelta(seconds=duration(keep_changes)),
            wait=True,
            dry_run=dry_run,
            say=_say,
        )
    finally:
        engine.close()
    if done.job is not None:
        _say(f"the job of {done.job} goes on: what it has begun, and the log, stay")
    would = "would be " if dry_run else ""
    print_pairs(
        {
            f"{would}dropped": ", ".join(done.dropped) or "none",
            "kept": ", ".join(done.kept) or "none",
            f"changes {would}forgotten": f"{done.trimmed:,}",
        }
    )
    result = {
        "dropped": done.dropped,
        "kept": done.kept,
        "waiting": done.waiting,
        "failed": done.failed,
        "trimmed": done.trimmed,
        "dry_run": dry_run,
    }
    write_json(result, json)
    if done.failed:
        raise typer.Exit(4)


def duration(text: str) -> float:
    """Seconds of ``60s``, ``5m``, ``12h`` or ``30d``.

    Raises:
        InputError: it is none of these.
    """
    found = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smhd]?)", text.strip())
    if found is None:
        raise InputError(f"{text!r} is no length of time", "write 60s, 5m, 12h or 30d")
    return float(found[1]) * _UNITS[found[2] or "s"]


def _opened(to: str) -> tuple[Engine, RecordStore]:
    from steelyard.indexer.records_place import records_of
    from steelyard.plugin.urls import open_engine

    engine = open_engine(to, must_exist=True)
    try:
        return engine, records_of(engine, to)
    except BaseException:
        engine.close()
        raise


def _replay(to: str, store: RecordStore, packs: list[Path]) -> Replay:
    """Replays with the pack that a generation was made with; deletes need none."""

    def replaying(generation: Generation, after: int, encodes: bool) -> int:
        from steelyard.indexer.generations.replaying import replay_with

        return replay_with(to, store, generation, after, packs, RichProgress(), encodes=encodes)

    return replaying


def _say(text: str) -> None:
    status.print(f"  {text}", markup=False, soft_wrap=True)
