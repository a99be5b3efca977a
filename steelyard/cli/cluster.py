"""``steelyard cluster``: a pack's look-ups inside OpenSearch, so that clients send text only."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from steelyard.cli.options import EngineOption
from steelyard.cli.output import (
    JsonOption,
    RichProgress,
    console,
    print_pairs,
    print_rows,
    write_json,
)
from steelyard.errors import InputError

app = typer.Typer(
    help="Encode queries inside OpenSearch: clients send text, no vectors.", no_args_is_help=True
)


@app.command()
def install(
    pack: Annotated[Path, typer.Argument(metavar="PACK", help="Query pack folder.")],
    to: EngineOption,
    instruction: Annotated[
        str | None, typer.Option(help="Which table; default: the pack's.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Table: float32, float16 or int8; default: the pack's.")
    ] = None,
    models_only: Annotated[
        bool,
        typer.Option(
            "--models-only", help="Leave the current index alone: the pack's next index takes it."
        ),
    ] = False,
    set_cluster_settings: Annotated[
        bool,
        typer.Option(
            "--set-cluster-settings", help="Change cluster settings that stand in the way."
        ),
    ] = False,
    text: Annotated[
        str, typer.Option(help="The query of the call that is printed.")
    ] = "heavy documents, weightless queries",
    json: JsonOption = None,
) -> None:
    """Put a pack's models and search pipeline into a cluster; safe to run again."""
    from steelyard.plugin.opensearch.cluster.example import curl, text_query
    from steelyard.plugin.opensearch.cluster.install import install as install_pack
    from steelyard.plugin.opensearch.cluster.target import open_target

    with open_target(to) as target:
        made = install_pack(
            pack,
            target,
            RichProgress(),
            instruction=instruction,
            dtype=dtype,
            models_only=models_only,
            set_cluster_settings=set_cluster_settings,
        )
        current = None if made.generation is None else target.current()
        settings = target.connection.settings
    rows: dict[str, Any] = {
        "pack": made.pack_id,
        **{
            f"{arm} model": identifier + (" (was there)" if arm in made.reused else "")
            for arm, identifier in made.models.items()
        },
        "pipeline": made.pipeline,
        "index": made.generation or "none yet: the pack's next 'steelyard index' takes it",
        "verified": f"dense vectors within {made.max_difference:.1e} of the pack's",
    }
    if made.removed:
        rows["removed"] = ", ".join(made.removed)
    if made.settings:
        rows["settings"] = ", ".join(f"{name} = {value}" for name, value in made.settings.items())
    if made.notes:
        rows["note"] = "\n".join(made.notes)
    print_pairs(rows)
    result: dict[str, Any] = asdict(made)
    if current is not None:
        body, path = text_query(current, text), f"/{target.alias}/_search"
        call = curl(settings, path, body)
        result |= {"search": {"method": "POST", "path": path, "body": body}, "curl": call}
        console.print(call, markup=False, soft_wrap=True)
    write_json(result, json)


@app.command()
def status(to: EngineOption, json: JsonOption = None) -> None:
    """Show the packs in a cluster, the state of their models, and who searches with them."""
    from steelyard.plugin.opensearch.cluster.status import installed_packs
    from steelyard.plugin.opensearch.cluster.target import open_target

    with open_target(to) as target:
        packs = installed_packs(target.connection)
    models = [
        [model.pack_id, model.arm, model.state, f"{model.bytes / 1e6:.1f} MB", model.id]
        for pack in packs
        for model in pack.models
    ]
    if not packs:
        console.print("no pack is installed in this cluster")
    else:
        print_rows("models", ["pack", "arm", "state", "size", "id"], models)
        rows = [
            [
                pack.pack_id,
                pack.state,
                pack.pipeline or "-",
                "\n".join(_use(use.index, use.aliases) for use in pack.uses) or "-",
            ]
            for pack in packs
        ]
        print_rows("packs", ["pack", "state", "pipeline", "indexes"], rows)
    result = [{**asdict(pack), "state": pack.state} for pack in packs]
    write_json({"packs": result}, json)


@app.command()
def uninstall(
    to: EngineOption,
    pack: Annotated[
        str | None, typer.Argument(metavar="[PACK]", help="Query pack folder, or a pack id.")
    ] = None,
    all_packs: Annotated[bool, typer.Option("--all", help="Every pack of ours.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also while an alias's index searches with it.")
    ] = False,
    json: JsonOption = None,
) -> None:
    """Take a pack's models and pipeline out of a cluster."""
    from steelyard.plugin.opensearch.cluster.target import open_target
    from steelyard.plugin.opensearch.cluster.uninstall import uninstall as uninstall_pack

    if all_packs == (pack is not None):
        raise InputError("name a pack, or say --all", "steelyard cluster status shows them")
    chosen = None if pack is None else _pack_id(pack)
    with open_target(to) as target:
        gone = uninstall_pack(target.connection, chosen, RichProgress(), force=force)
    print_pairs(
        {
            "packs": ", ".join(gone.packs) or "none",
            "models": len(gone.models),
            "pipelines": len(gone.pipelines),
            "indexes": ", ".join(gone.indexes) or "none",
        }
    )
    write_json(asdict(gone), json)


def _pack_id(pack: str) -> str:
    """Of a folder, or the id itself: what was installed may not be on this machine."""
    from steelyard.encoders.pack.files import read_metadata
    from steelyard.plugin.opensearch.cluster.names import pack_of, pipeline_name

    if not Path(pack).exists() and pack_of(pipeline_name(pack)) is not None:
        return pack
    return read_metadata(Path(pack)).pack_id


def _use(index: str, aliases: list[str]) -> str:
    return f"{index} ({', '.join(aliases)})" if aliases else index
