"""What is installed in a cluster, and who searches with it."""

from __future__ import annotations

from dataclasses import dataclass, field

from steelyard.plugin.opensearch.cluster.checks import check_plugins
from steelyard.plugin.opensearch.cluster.models import DEPLOYED, Model, find_models
from steelyard.plugin.opensearch.cluster.names import pack_of, pipeline_name
from steelyard.plugin.opensearch.cluster.pipelines import (
    aliases_of,
    default_pipelines,
    find_pipelines,
    models_in,
)
from steelyard.plugin.opensearch.connection import Connection


@dataclass(frozen=True, slots=True)
class Use:
    """An index whose default pipeline is a pack's, and the aliases that stand for it."""

    index: str
    aliases: list[str]


@dataclass(frozen=True, slots=True)
class PackStatus:
    """One pack in a cluster.

    Attributes:
        pack_id: which.
        models: of both arms; more than one an arm after a killed installation.
        pipeline: its name; None where there is none.
        named: model ids by arm in the pipeline.
        uses: the indexes that search with it.
    """

    pack_id: str
    models: list[Model] = field(default_factory=list)
    pipeline: str | None = None
    named: dict[str, str] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)

    @property
    def state(self) -> str:
        """``ready``, ``not deployed``, or ``incomplete``."""
        states = {model.id: model.state for model in self.models}
        if not self.named or not set(self.named.values()) <= states.keys():
            return "incomplete"
        ready = all(states[model] in DEPLOYED for model in self.named.values())
        return "ready" if ready else "not deployed"


def installed_packs(connection: Connection) -> list[PackStatus]:
    """All packs of which anything is in the cluster, by id.

    Raises:
        EngineError: a cluster without ML Commons.
    """
    check_plugins(connection)
    models, pipelines = find_models(connection), find_pipelines(connection)
    defaults = default_pipelines(connection)
    used = {index: pipeline for index, pipeline in defaults.items() if pack_of(pipeline)}
    aliases = aliases_of(connection, sorted(used))
    packs = {model.pack_id for model in models}
    packs |= {pack for name in (*pipelines, *used.values()) if (pack := pack_of(name))}
    return [
        PackStatus(
            pack_id=pack,
            models=[model for model in models if model.pack_id == pack],
            pipeline=name if name in pipelines else None,
            named=models_in(pipelines.get(name, {})),
            uses=[
                Use(index, aliases.get(index, []))
                for index, pipeline in sorted(used.items())
                if pipeline == name
            ],
        )
        for pack in sorted(packs)
        for name in (pipeline_name(pack),)
    ]
