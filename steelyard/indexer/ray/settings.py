"""Which cluster, and what of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RaySettings:
    """How to encode on a Ray cluster.

    Attributes:
        address: of a running cluster (``auto``, ``host:6379``, ``ray://host:10001``); None starts
            one on this machine.
        actors: encoder processes, each with a model of its own; None: one for each GPU asked for,
            or one for each processor of the cluster.
        gpus_per_actor: 0 encodes on processors.
        cpus_per_actor: processors that an actor reserves; its thread count on processors.
    """

    address: str | None = None
    actors: int | None = None
    gpus_per_actor: int = 0
    cpus_per_actor: int = 1
