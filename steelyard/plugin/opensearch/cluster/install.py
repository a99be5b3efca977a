"""A pack into a cluster: both models, the pipeline, and the current generation's default.

Every step finds what an earlier, killed run has done, and goes on from there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from steelyard.encoders.export.formats import export_pack
from steelyard.encoders.export.opensearch_models import MODELS
from steelyard.encoders.export.source import open_source
from steelyard.encoders.pack.metadata import PackMetadata
from steelyard.errors import EngineError
from steelyard.plugin.engine import Generation
from steelyard.plugin.opensearch.cluster.checks import check_plugins, check_settings
from steelyard.plugin.opensearch.cluster.models import (
    DEPLOYED,
    HALF,
    Model,
    deploy,
    find_models,
    register,
    remove,
    state_of,
)
from steelyard.plugin.opensearch.cluster.names import model_name, pack_of, pipeline_name
from steelyard.plugin.opensearch.cluster.pipelines import (
    default_pipelines,
    pipeline_body,
    put_pipeline,
    set_default,
)
from steelyard.plugin.opensearch.cluster.target import Target
from steelyard.plugin.opensearch.cluster.verify import verify
from steelyard.plugin.opensearch.connection import Connection
from steelyard.plugin.packs import check_spaces
from steelyard.progress import Progress


@dataclass(frozen=True, slots=True)
class Installed:
    """What an installation made or found.

    Attributes:
        pack_id: whose.
        models: model ids by arm.
        reused: arms whose model was there already.
        removed: ids of models taken away: half registered, or of other contents.
        pipeline: its name.
        generation: the index whose default it is now; None of a pack installed for the next one.
        max_difference: between the cluster's dense vectors and the pack's, in a component.
        settings: cluster settings that were changed.
        notes: where queries by text differ from the pack's own.
    """

    pack_id: str
    models: dict[str, str]
    reused: list[str]
    removed: list[str]
    pipeline: str
    generation: str | None
    max_difference: float
    settings: dict[str, bool] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def install(
    pack: Path,
    target: Target,
    progress: Progress,
    *,
    instruction: str | None = None,
    dtype: str | None = None,
    models_only: bool = False,
    set_cluster_settings: bool = False,
) -> Installed:
    """Install a pack, and make its pipeline the default of the alias's generation.

    Args:
        pack: the pack's folder.
        target: the cluster and the alias.
        progress: shows the upload.
        instruction: name of the table; None is the pack's default.
        dtype: of the table in the cluster; None is the pack's own.
        models_only: leave the current generation alone; the next one that is made with this
            pack takes its pipeline.
        set_cluster_settings: change cluster settings that stand in the way.

    Raises:
        PackMismatchError: the generation's documents are of another space.
        EngineError: no such index, no ML Commons, settings that stand in the way, a model that
            does not deploy or that answers otherwise than the pack.
        MissingExtraError: onnx is not installed.
    """
    connection = target.connection
    source = open_source(pack, instruction=instruction, dtype=dtype)
    metadata = source.metadata
    generation = None if models_only else _generation_for(metadata, target)
    check_plugins(connection)
    changed = check_settings(connection, change=set_cluster_settings)
    with TemporaryDirectory(prefix="steelyard-cluster-") as folder:
        with progress.stage("export to ONNX"):
            made = export_pack(
                pack, "opensearch", Path(folder) / "export", instruction=instruction, dtype=dtype
            )
        models, reused, others = _register_both(connection, metadata, Path(made.path), progress)
    for arm, identifier in models.items():
        if state_of(connection, identifier) not in DEPLOYED:
            with progress.stage(f"deploy the {arm} model"):
                deploy(connection, identifier, model_name(metadata.pack_id, arm))
    with progress.stage("compare with the pack"):
        difference = verify(connection, source, models)
    name = pipeline_name(metadata.pack_id)
    columns = {} if generation is None else generation.columns
    put_pipeline(connection, name, pipeline_body(metadata, models, columns))
    if generation is not None:
        set_default(connection, generation.name, name)
    for model in others:  # the pipeline names them no longer
        remove(connection, model)
    return Installed(
        pack_id=metadata.pack_id,
        models=models,
        reused=reused,
        removed=sorted(model.id for model in others),
        pipeline=name,
        generation=None if generation is None else generation.name,
        max_difference=difference,
        settings=changed,
        notes=made.notes,
    )


def _generation_for(metadata: PackMetadata, target: Target) -> Generation:
    """The current generation, which this pack must fit and which must be free to take it."""
    generation = target.current()
    if generation is None:
        raise EngineError(
            f"no index {target.alias!r} in this cluster",
            "make one with 'steelyard index', or add --models-only to install before that",
        )
    check_spaces(
        metadata.spaces,
        generation,
        "install the pack of this index; for the next index of this pack, add --models-only and "
        "then run 'steelyard index'",
        here=True,
    )
    there = default_pipelines(target.connection, generation.name).get(generation.name)
    if there is not None and pack_of(there) is None:
        raise EngineError(
            f"{generation.name} has a default pipeline of someone else, {there!r}",
            "take it off (index.search.default_pipeline: null), or add --models-only and put "
            "the processors of our pipeline into yours",
        )
    return generation


def _register_both(
    connection: Connection, metadata: PackMetadata, export: Path, progress: Progress
) -> tuple[dict[str, str], list[str], list[Model]]:
    """Both models by id, the arms that were there, and what is there besides."""
    bodies = json.loads((export / MODELS).read_text(encoding="utf-8"))
    found = find_models(connection, metadata.pack_id)
    models, reused = {}, []
    for arm in ("dense", "sparse"):
        registration = bodies[arm]["register_meta"]
        registration["name"] = model_name(metadata.pack_id, arm)
        registration["description"] = f"{metadata.name}, {arm} queries, by Steelyard"
        same = [
            model
            for model in found
            if model.arm == arm
            and model.state != HALF
            and model.sha256 == registration["model_content_hash_value"]
        ]
        if same:
            best = min(same, key=lambda model: (model.state not in DEPLOYED, model.id))
            models[arm] = best.id
            reused.append(arm)
            continue
        size = int(registration["model_content_size_in_bytes"])
        with progress.stage(f"upload the {arm} model", size) as advance:
            file, chunk = export / bodies[arm]["file"], bodies["chunk_bytes"]
            models[arm] = register(connection, registration, file, chunk, advance)
    return models, reused, [model for model in found if model.id not in models.values()]
