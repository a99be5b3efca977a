"""Replicas and refreshes: off while a generation is loaded, as they should be before it is seen.

A replica of an index that is being loaded does all of the work again; made afterwards, it copies
files. What an index was given when it was made (by a template, or the cluster's default) is noted
in its mapping, so that it can be given back.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from steelyard.errors import EngineError
from steelyard.plugin.opensearch.connection import Connection
from steelyard.plugin.opensearch.mapping import DESCRIPTION
from steelyard.plugin.opensearch.settings import REPLICAS

SERVING = "serving"
"""The note, in our part of the mapping's ``_meta``."""

_COPIES, _EXPAND, _REFRESH = "number_of_replicas", "auto_expand_replicas", "refresh_interval"
_STALL = 120.0
"""Seconds without any copy being made after which waiting for copies is given up."""
_POLL = 0.5


def without_copies(connection: Connection, name: str) -> None:
    """Note how many replicas a new index has been given, then take them away."""
    action, request = f"prepare {name}", connection.request
    given = _settings(connection, name)
    mappings = request(action, "GET", f"/{name}/_mapping")[name].get("mappings") or {}
    meta = mappings.get("_meta") or {}
    noted = {key: given[key] for key in (_COPIES, _EXPAND) if key in given}
    ours = {**meta.get(DESCRIPTION, {}), SERVING: noted}
    request(action, "PUT", f"/{name}/_mapping", {"_meta": {**meta, DESCRIPTION: ours}})
    alone = {_COPIES: 0, _EXPAND: "false"}
    request(action, "PUT", f"/{name}/_settings", {"index": alone})


def serve_as(connection: Connection, name: str, current: str | None) -> None:
    """Give a loaded index its replicas and refreshes, and wait until the copies are made.

    Replicas are what ``$STEELYARD_OPENSEARCH_REPLICAS`` says, else what the current generation
    has, else what the index was given when it was made.

    Args:
        connection, name: of the index.
        current: the index that the alias stands for.

    Raises:
        EngineError: the copies are not made: nothing may be published.
    """
    action, request = f"make the replicas of {name}", connection.request
    told = request(action, "GET", f"/{name}/_mapping")[name]["mappings"]["_meta"][DESCRIPTION]
    noted: Mapping[str, Any] | None = told.get(SERVING)
    before = {} if current is None else _settings(connection, current)
    wish: dict[str, Any] = {}
    if connection.settings.replicas is not None:
        wish = _wish(connection.settings.replicas)
    elif noted is not None:
        wish = _copied(before) if before else _copied(noted)
    refresh = before.get(_REFRESH)
    settings = {_REFRESH: None if refresh == "-1" else refresh, **wish}
    request(action, "PUT", f"/{name}/_settings", {"index": settings})
    _wait(connection, name)


def _settings(connection: Connection, name: str) -> dict[str, Any]:
    answer = connection.request(f"read the settings of {name}", "GET", f"/{name}/_settings")
    found: dict[str, Any] = answer[name]["settings"]["index"]
    return found


def _copied(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same replicas as another index."""
    expand = str(settings.get(_EXPAND, "false"))
    if expand != "false":
        return {_EXPAND: expand}
    return {_EXPAND: "false", _COPIES: int(settings.get(_COPIES, 1))}


def _wish(text: str) -> dict[str, Any]:
    """Of the environment variable: ``2``, or ``0-all``."""
    return {_EXPAND: text} if "-" in text else {_EXPAND: "false", _COPIES: int(text)}


def _wait(connection: Connection, name: str) -> None:
    """Until all copies that the cluster has nodes for are made."""
    best, moved = -1, time.monotonic()
    while True:
        health = connection.request(
            f"wait for the replicas of {name}", "GET", f"/_cluster/health/{name}"
        )
        active, missing = int(health["active_shards"]), int(health["unassigned_shards"])
        nodes, shards = int(health["number_of_data_nodes"]), int(health["active_primary_shards"])
        if health["status"] == "green":
            return
        # A node holds one copy of a shard at most.
        if health["status"] == "yellow" and active >= shards * nodes:
            return
        if active != best or int(health["initializing_shards"]):
            best, moved = active, time.monotonic()
        elif time.monotonic() - moved > _STALL:
            raise EngineError(
                f"{name} is {health['status']}: {missing} of its copies are not made, for "
                f"{_STALL:g} s now, on {nodes} data nodes",
                "ask the cluster why (/_cluster/allocation/explain), or set "
                f"${REPLICAS}; nothing is published",
            )
        time.sleep(_POLL)
