"""Options of commands that can encode on a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from steelyard.errors import InputError

if TYPE_CHECKING:
    from steelyard.indexer.ray.settings import RaySettings

RayOption = Annotated[
    bool, typer.Option("--ray", help="Encode with actors on a Ray cluster; without address: here.")
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Of the cluster: auto, host:6379, ray://host:10001."),
]
ActorsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Encoder processes; default: as many as the cluster has room for."),
]
GpusPerActorOption = Annotated[int, typer.Option(min=0, help="0 encodes on processors.")]
CpusPerActorOption = Annotated[int, typer.Option(min=1, help="Processors for each process.")]


def ray_settings(
    ray: bool, address: str | None, actors: int | None, gpus: int, cpus: int
) -> RaySettings | None:
    """What the options ask for; None without ``--ray``.

    Raises:
        InputError: options of a cluster without ``--ray``.
    """
    if not ray:
        if address is not None or actors is not None or gpus:
            raise InputError(
                "--ray-address, --actors and --gpus-per-actor are for --ray", "add it"
            )
        return None
    from steelyard.indexer.ray.settings import RaySettings

    return RaySettings(address, actors, gpus, cpus)
