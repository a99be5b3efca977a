"""A connection to a Ray cluster, for as long as a job encodes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from steelyard.errors import InputError, SteelyardError, first_line, needs_extra
from steelyard.indexer.ray.fault_handlers import kept_fault_handlers
from steelyard.indexer.ray.settings import RaySettings

with needs_extra("ray"):
    import ray


@contextmanager
def connected(settings: RaySettings) -> Iterator[None]:
    """Connect, or start a cluster here; one that the caller is connected to already is used.

    Raises:
        SteelyardError: no cluster at the address.
    """
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if settings.address is None:
        options["include_dashboard"] = False
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a job calls nobody's home
        if settings.gpus_per_actor == 0 and settings.actors is not None:
            options["num_cpus"] = settings.actors * settings.cpus_per_actor
    else:
        options["address"] = settings.address
    try:
        with kept_fault_handlers():
            ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise SteelyardError(
            f"no Ray cluster at {settings.address or 'this machine'}: {first_line(error)}",
            "start one with 'ray start --head', or leave out --ray-address",
        ) from error
    try:
        yield
    finally:
        with kept_fault_handlers():
            ray.shutdown()


def actor_count(settings: RaySettings) -> int:
    """How many actors to start.

    Raises:
        InputError: the cluster cannot hold even one.
    """
    has = ray.cluster_resources()
    wanted = {"GPU": settings.gpus_per_actor, "CPU": settings.cpus_per_actor}
    for name, count in wanted.items():
        if has.get(name, 0) < count:
            raise InputError(
                f"an actor needs {count} {name}, the cluster has {has.get(name, 0):g}",
                "set --gpus-per-actor and --cpus-per-actor to what there is",
            )
    if settings.actors is not None:
        return settings.actors
    return min(int(has[name] // count) for name, count in wanted.items() if count)
