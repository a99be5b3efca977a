"""A new generation takes the pipeline of its pack before the alias moves to it.

Clients that send query_text know neither models nor pipelines. They would get errors from a
generation without a default pipeline, so that one is not published in the place of one that has.
"""

from __future__ import annotations

from steelyard.errors import EngineError
from steelyard.plugin.engine import Generation
from steelyard.plugin.opensearch.cluster.models import DEPLOYED, deploy, state_of
from steelyard.plugin.opensearch.cluster.names import model_name, pack_of, pipeline_name
from steelyard.plugin.opensearch.cluster.pipelines import (
    default_pipelines,
    find_pipelines,
    models_in,
    set_default,
)
from steelyard.plugin.opensearch.connection import Connection


def refuse_without_pack(
    connection: Connection, current: Generation | None, generation: Generation
) -> None:
    """For before a load: refuse a generation that could not be published.

    Args:
        connection: to the cluster.
        current: what the alias stands for.
        generation: the one to be made.

    Raises:
        EngineError: the current one is searched by query_text, and no installed pack encodes
            queries for the new one.
    """
    in_use = _own(connection, current)
    if in_use is not None and current is not None:
        _chosen(connection, current, in_use, generation, None)


def attach_pipeline(
    connection: Connection, current: Generation | None, generation: Generation
) -> str | None:
    """Set the default pipeline of a generation that is about to be published.

    The pipeline is the first installed of: the index's own, its pack's, the current
    generation's if the documents are of the same spaces. A default pipeline of someone else
    (from an index template) stays.

    Args:
        connection: to the cluster.
        current: what the alias stands for.
        generation: sealed, not published.

    Returns:
        The pipeline; None where nobody searches by query_text.

    Raises:
        EngineError: see ``refuse_without_pack``, or a model does not deploy.
    """
    name = generation.name
    own = default_pipelines(connection, name).get(name)
    if own is not None and pack_of(own) is None:
        return own
    in_use = _own(connection, current)
    chosen = _chosen(connection, current, in_use, generation, own)
    if chosen is None:
        if own is not None:  # it was uninstalled: every search would be an error
            set_default(connection, name, None)
        return None
    pipeline, models = chosen
    for arm, model in models.items():
        if state_of(connection, model) not in DEPLOYED:
            deploy(connection, model, model_name(pack_of(pipeline) or "", arm))
    if pipeline != own:
        set_default(connection, name, pipeline)
    return pipeline


def _own(connection: Connection, generation: Generation | None) -> str | None:
    """The pipeline of ours that is a generation's default."""
    if generation is None:
        return None
    pipeline = default_pipelines(connection, generation.name).get(generation.name)
    return pipeline if pipeline is not None and pack_of(pipeline) else None


def _chosen(
    connection: Connection,
    current: Generation | None,
    in_use: str | None,
    generation: Generation,
    own: str | None,
) -> tuple[str, dict[str, str]] | None:
    """Pipeline and models for a generation; None where none is needed.

    Raises:
        EngineError: one is needed, and none is installed.
    """
    candidates = [own, pipeline_name(generation.pack_id)]
    if current is not None and _spaces(current) == _spaces(generation):
        candidates.append(in_use)
    for pipeline in dict.fromkeys(name for name in candidates if name is not None):
        models = models_in(find_pipelines(connection, pipeline).get(pipeline, {}))
        if models and all(state_of(connection, model) for model in models.values()):
            return pipeline, models
    if current is None or in_use is None:
        return None
    raise EngineError(
        f"{current.name} is searched by query_text, and {generation.pack_id}, the pack of "
        f"{generation.name}, is not installed in the cluster: clients would get errors",
        "steelyard cluster install PACK --to URL --models-only, then again; or give up search by "
        f"query_text: steelyard cluster uninstall {pack_of(in_use)} --to URL --force",
    )


def _spaces(generation: Generation) -> tuple[str, str]:
    return generation.dense_space, generation.sparse_space
