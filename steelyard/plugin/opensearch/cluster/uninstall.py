"""A pack out of a cluster: the indexes' default, the pipeline, the models."""

from __future__ import annotations

from dataclasses import dataclass

from steelyard.errors import EngineError
from steelyard.plugin.opensearch.cluster.models import remove
from steelyard.plugin.opensearch.cluster.pipelines import delete_pipeline, set_default
from steelyard.plugin.opensearch.cluster.status import PackStatus, installed_packs
from steelyard.plugin.opensearch.connection import Connection
from steelyard.progress import Progress


@dataclass(frozen=True, slots=True)
class Uninstalled:
    """What was taken out.

    Attributes:
        packs: pack ids.
        models: ids of models.
        pipelines: their names.
        indexes: those that have no default pipeline any more.
    """

    packs: list[str]
    models: list[str]
    pipelines: list[str]
    indexes: list[str]


def uninstall(
    connection: Connection,
    pack_id: str | None,
    progress: Progress,
    *,
    force: bool = False,
) -> Uninstalled:
    """Take one pack out, or all.

    Args:
        connection: to the cluster.
        pack_id: which; None is all.
        progress: told of each model.
        force: also where an alias stands for an index that searches with it.

    Raises:
        EngineError: the pack is not installed, or is in use; nothing was removed.
    """
    found = installed_packs(connection)
    chosen = [pack for pack in found if pack_id in (None, pack.pack_id)]
    if pack_id is not None and not chosen:
        known = ", ".join(pack.pack_id for pack in found) or "none"
        raise EngineError(f"{pack_id} is not installed in this cluster", f"installed: {known}")
    if not force:
        for pack in chosen:
            _refuse_in_use(pack)
    for pack in chosen:
        # From the user's end: nothing ever names what is gone.
        for use in pack.uses:
            set_default(connection, use.index, None)
        if pack.pipeline is not None:
            delete_pipeline(connection, pack.pipeline)
        with progress.stage(f"remove the models of {pack.pack_id}", len(pack.models)) as advance:
            for model in pack.models:
                remove(connection, model)
                advance(1)
    return Uninstalled(
        packs=[pack.pack_id for pack in chosen],
        models=[model.id for pack in chosen for model in pack.models],
        pipelines=[pack.pipeline for pack in chosen if pack.pipeline is not None],
        indexes=[use.index for pack in chosen for use in pack.uses],
    )


def _refuse_in_use(pack: PackStatus) -> None:
    live = [use for use in pack.uses if use.aliases]
    if live:
        told = ", ".join(f"{use.index} ({', '.join(use.aliases)})" for use in live)
        raise EngineError(
            f"{pack.pack_id} encodes the queries of {told}: clients that send query_text would "
            "get errors",
            "re-index with another installed pack first, or add --force",
        )
