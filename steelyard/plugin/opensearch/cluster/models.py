"""Models in ML Commons: found by name, registered in pieces, deployed, asked, removed.

Facts of ML Commons that shape this code: names are not unique; a model whose upload was cut off
stays REGISTERING and can only be deleted; a search of models can trail behind a registration;
two deployments of one model at a time fail with a version conflict; a deployed model cannot be
deleted; deleting the last model of a group leaves the group.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steelyard.errors import EngineError
from steelyard.plugin.opensearch.cluster.names import PREFIX, model_of
from steelyard.plugin.opensearch.connection import Connection

HALF = "REGISTERING"
"""State of a model whose pieces are not all there."""

DEPLOYED = ("DEPLOYED", "PARTIALLY_DEPLOYED")

DEPLOY_SECONDS = 600.0
"""A deployment that takes longer has failed: it is ML Commons' own limit of a task."""

_API = "/_plugins/_ml"
_POLL_SECONDS = 0.3
_GROUP_SECONDS = 10.0
_MOST = 1000


@dataclass(frozen=True, slots=True)
class Model:
    """One model of ours.

    Attributes:
        id: ML Commons' own.
        pack_id, arm: what it encodes queries for.
        state: ML Commons' word.
        sha256, bytes: of its zip.
        group: ML Commons' group of its versions.
    """

    id: str
    pack_id: str
    arm: str
    state: str
    sha256: str
    bytes: int
    group: str

    @property
    def name(self) -> str:
        """As registered."""
        return f"{PREFIX}{self.pack_id}-{self.arm}"


def find_models(connection: Connection, pack_id: str | None = None) -> list[Model]:
    """Our models, of one pack or of all, in a steady order."""
    body = {
        "size": _MOST,
        "query": {
            "bool": {
                "filter": [{"prefix": {"name.keyword": f"{PREFIX}{pack_id or ''}"}}],
                "must_not": [{"exists": {"field": "chunk_number"}}],
            }
        },
    }
    answer = connection.request("look up models", "POST", f"{_API}/models/_search", body)
    found = []
    for hit in answer.get("hits", {}).get("hits", []):
        source = hit["_source"]
        named = model_of(str(source.get("name")))
        if named is None or pack_id not in (None, named[0]):
            continue
        found.append(
            Model(
                id=hit["_id"],
                pack_id=named[0],
                arm=named[1],
                state=str(source.get("model_state")),
                sha256=str(source.get("model_content_hash_value")),
                bytes=int(source.get("model_content_size_in_bytes") or 0),
                group=str(source.get("model_group_id") or ""),
            )
        )
    return sorted(found, key=lambda model: (model.name, model.id))


def register(
    connection: Connection,
    registration: Mapping[str, Any],
    file: Path,
    chunk_bytes: int,
    advance: Callable[[int], None],
) -> str:
    """Register a model and upload its zip; gives the model's id.

    Args:
        connection: to the cluster.
        registration: body of ``_register_meta``.
        file: the zip.
        chunk_bytes: size of a piece.
        advance: told of the bytes of each piece that is there.
    """
    action = f"register {registration['name']}"
    answer = connection.request(
        action, "POST", f"{_API}/models/_register_meta", dict(registration)
    )
    identifier = str(answer["model_id"])
    with file.open("rb") as stream:
        for part in range(int(registration["total_chunks"])):
            piece = stream.read(chunk_bytes)
            path = f"{_API}/models/{identifier}/upload_chunk/{part}"
            connection.request(action, "POST", path, piece)
            advance(len(piece))
    return identifier


def state_of(connection: Connection, identifier: str) -> str | None:
    """A model's state now; None of one that is gone."""
    answer = connection.request(
        "look up a model", "GET", f"{_API}/models/{identifier}", missing_ok=True
    )
    return None if answer is None else str(answer.get("model_state"))


def deploy(connection: Connection, identifier: str, name: str) -> None:
    """Load a model on the cluster's nodes; returns when it answers.

    Raises:
        EngineError: ML Commons' own reason, or it took too long.
    """
    action = f"deploy {name}"
    for last in (False, True):
        started = connection.request(action, "POST", f"{_API}/models/{identifier}/_deploy")
        task = _finished(connection, action, str(started["task_id"]))
        if task["state"] in ("COMPLETED", "COMPLETED_WITH_ERROR"):
            return
        said = str(task.get("error", "no reason given"))
        # Someone else deployed it at the same time.
        if "version conflict" in said and not last:
            continue
        raise EngineError(f"cannot {action}: {said[:300]}", _deploy_hint(said))


def predict(
    connection: Connection, identifier: str, texts: Sequence[str], *, dense: bool
) -> list[Any]:
    """What a deployed model answers to each text: numbers, or token -> weight."""
    body: dict[str, Any] = {"text_docs": list(texts)}
    if dense:
        body |= {"return_number": True, "target_response": ["sentence_embedding"]}
    path = f"{_API}/models/{identifier}/_predict"
    answer = connection.request("ask a model", "POST", path, body)
    outputs = [output for result in answer["inference_results"] for output in result["output"]]
    if dense:
        return [output["data"] for output in outputs]
    return [row for output in outputs for row in output["dataAsMap"]["response"]]


def remove(connection: Connection, model: Model) -> None:
    """Undeploy and delete a model, and its group when it was the last there."""
    action, path = f"remove {model.name}", f"{_API}/models/{model.id}"
    deadline = time.monotonic() + connection.settings.timeout
    while True:
        if model.state != HALF:
            connection.request(action, "POST", f"{path}/_undeploy", missing_ok=True)
        try:
            connection.request(action, "DELETE", path, missing_ok=True)
            break
        except EngineError as error:
            # Its state trails behind the undeployment.
            if "deployed state" not in error.message or time.monotonic() > deadline:
                raise
        time.sleep(_POLL_SECONDS)
    if model.group and not _others(connection, model):
        _remove_group(connection, action, model.group)


def _others(connection: Connection, model: Model) -> bool:
    """Whether the group of a model that is gone still has another."""
    left = find_models(connection, model.pack_id)
    return any(other.group == model.group and other.id != model.id for other in left)


def _remove_group(connection: Connection, action: str, group: str) -> None:
    """Delete a group whose models are gone."""
    deadline = time.monotonic() + _GROUP_SECONDS
    while time.monotonic() < deadline:
        try:
            path = f"{_API}/model_groups/{group}"
            connection.request(action, "DELETE", path, missing_ok=True)
            return
        except EngineError as error:
            # The pieces of a deleted model go a little later. An empty group does no harm.
            if "associated model" not in error.message:
                raise
        time.sleep(_POLL_SECONDS)


def _finished(connection: Connection, action: str, task: str) -> dict[str, Any]:
    deadline = time.monotonic() + DEPLOY_SECONDS
    while time.monotonic() < deadline:
        state: dict[str, Any] = connection.request(action, "GET", f"{_API}/tasks/{task}")
        if state["state"] not in ("CREATED", "RUNNING"):
            return state
        time.sleep(_POLL_SECONDS)
    raise EngineError(
        f"cannot {action}: not done after {DEPLOY_SECONDS:g} s",
        "look at the nodes' logs, then run the command again: it goes on where it stands",
    )


def _deploy_hint(said: str) -> str:
    text = said.lower()
    if "native memory" in text or "jvm heap memory" in text or "circuit breaker" in text:
        return (
            "free memory on the nodes, or raise plugins.ml_commons.native_memory_threshold "
            "and jvm_heap_memory_threshold"
        )
    if "max_model_on_node" in text or "exceed max local model" in text or "exceed max" in text:
        return (
            "uninstall packs that are not used (steelyard cluster status), or raise "
            "plugins.ml_commons.max_model_on_node"
        )
    if any(word in text for word in ("pytorch", "djl", "unknownhost", "libtorch")):
        return (
            "ML Commons loads PyTorch's native libraries for this and fetches them once: let "
            "the nodes reach publish.djl.ai, or put the libraries there (docs/in-cluster.md)"
        )
    return "look at the nodes' logs, then run the command again"
