"""Whether a cluster can encode queries, and the exact call that lets it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from steelyard.errors import EngineError
from steelyard.plugin.opensearch.connection import Connection

_ML = "plugins.ml_commons."
LOCAL_FILE = f"{_ML}allow_registering_model_via_local_file"
ML_NODE = f"{_ML}only_run_on_ml_node"
LOCAL_MODEL = f"{_ML}local_model.enabled"
PLUGINS = {
    "opensearch-ml": "ML Commons, which runs the look-ups",
    "opensearch-neural-search": "neural and neural_sparse queries",
    "opensearch-knn": "the dense arm",
}


def check_plugins(connection: Connection) -> None:
    """Refuse a cluster without the plugins.

    Raises:
        EngineError: which are missing.
    """
    listed = connection.request(
        "list plugins", "GET", "/_cat/plugins", parameters={"format": "json", "h": "component"}
    )
    there = {str(row["component"]) for row in listed}
    missing = [f"{name} ({use})" for name, use in PLUGINS.items() if name not in there]
    if missing:
        raise EngineError(
            f"the cluster at {connection.settings.where} lacks {', '.join(missing)}",
            "install the plugins in every node, or search with vectors made by the client "
            "(steelyard query --dsl opensearch), which needs no ML Commons",
        )


def needed_settings(connection: Connection) -> dict[str, bool]:
    """Cluster settings that stand in the way, with the values that they need."""
    values = _settings(connection)
    needed = {}
    if _is(values, LOCAL_FILE, False):
        needed[LOCAL_FILE] = True
    if _is(values, LOCAL_MODEL, False):
        needed[LOCAL_MODEL] = True
    if _is(values, ML_NODE, True) and not _has_ml_node(connection):
        needed[ML_NODE] = False
    return needed


def check_settings(connection: Connection, *, change: bool) -> dict[str, bool]:
    """Refuse a cluster whose settings stand in the way, or change them.

    Args:
        connection: to the cluster.
        change: whether the settings may be changed.

    Returns:
        What was changed.

    Raises:
        EngineError: the settings, and the call that changes them.
    """
    needed = needed_settings(connection)
    if not needed:
        return {}
    body = {"persistent": needed}
    if not change:
        told = ", ".join(f"{name} is {json.dumps(not value)}" for name, value in needed.items())
        raise EngineError(
            f"the cluster does not run models of ours: {told}",
            f"PUT /_cluster/settings {json.dumps(body)}, or --set-cluster-settings",
        )
    connection.request("change cluster settings", "PUT", "/_cluster/settings", body)
    return needed


def _settings(connection: Connection) -> dict[str, Any]:
    """The values that hold: transient before persistent before the node's and the defaults."""
    answer = connection.request(
        "read cluster settings",
        "GET",
        "/_cluster/settings",
        parameters={"include_defaults": "true", "flat_settings": "true"},
    )
    values: dict[str, Any] = {}
    for level in ("defaults", "persistent", "transient"):
        values |= answer.get(level, {})
    return values


def _is(values: Mapping[str, Any], name: str, value: bool) -> bool:
    """A setting that this version does not know stands in nobody's way."""
    return str(values.get(name, "")).lower() == str(value).lower()


def _has_ml_node(connection: Connection) -> bool:
    answer = connection.request(
        "list nodes", "GET", "/_nodes/_all", parameters={"filter_path": "nodes.*.roles"}
    )
    return any("ml" in node.get("roles", []) for node in answer.get("nodes", {}).values())
