"""What a home of OpenSearch is made of: the Maven artefacts of each of its folders."""

from __future__ import annotations

from dataclasses import dataclass

VERSION = "3.6.0"
PLUGIN_VERSION = f"{VERSION}.0"
PYTORCH = "2.5.1"
NATIVES = f"{PYTORCH}-cpu-precxx11-linux-x86_64"
"""The folder's name in which DJL looks for PyTorch before it would ask the internet."""


@dataclass(frozen=True)
class Part:
    """One folder of the home and the artefacts, ``group:artefact:version[:type[:classifier]]``.

    Attributes:
        name: the folder.
        artefacts: what is asked of Maven.
        alone: without what they depend on.
    """

    name: str
    artefacts: tuple[str, ...]
    alone: bool = False


@dataclass(frozen=True)
class Module:
    """A module that every distribution has.

    Attributes:
        name: as the distribution calls it.
        artefact: of the group org.opensearch.plugin.
        classname: the plugin's main class.
        extends: the module that it needs.
    """

    name: str
    artefact: str
    classname: str
    extends: str = ""


_CORE = (
    Part(
        "lib",
        (
            f"org.opensearch:opensearch:{VERSION}",
            f"org.opensearch:opensearch-plugin-classloader:{VERSION}",
            "net.java.dev.jna:jna:5.16.0",
            "org.apache.logging.log4j:log4j-core:2.25.3",
        ),
    ),
    Part(
        "agent",
        tuple(
            f"org.opensearch:{name}:{VERSION}"
            for name in ("opensearch-agent", "opensearch-agent-bootstrap")
        ),
    ),
)

MODULES = (
    Module(
        "transport-netty4",
        "transport-netty4-client",
        "org.opensearch.transport.Netty4ModulePlugin",
    ),
    Module(
        "analysis-common",
        "analysis-common",
        "org.opensearch.analysis.common.CommonAnalysisModulePlugin",
    ),
    Module(
        "mapper-extras",
        "mapper-extras-client",
        "org.opensearch.index.mapper.MapperExtrasModulePlugin",
    ),
    Module("lang-painless", "lang-painless", "org.opensearch.painless.PainlessModulePlugin"),
    Module("reindex", "reindex-client", "org.opensearch.index.reindex.ReindexModulePlugin"),
    Module(
        "search-pipeline-common",
        "search-pipeline-common",
        "org.opensearch.search.pipeline.common.SearchPipelineCommonModulePlugin",
    ),
    Module("parent-join", "parent-join-client", "org.opensearch.join.ParentJoinModulePlugin"),
    Module(
        "ingest-common",
        "ingest-common",
        "org.opensearch.ingest.common.IngestCommonModulePlugin",
        extends="lang-painless",
    ),
    Module("transport-grpc", "transport-grpc", "org.opensearch.transport.grpc.GrpcPlugin"),
)

_PLUGINS = ("opensearch-job-scheduler", "opensearch-knn", "neural-search")
_ML_PLUGIN = "opensearch-ml-plugin"
ML_NATIVES = Part(
    "natives",
    (
        f"ai.djl.pytorch:pytorch-native-cpu:{PYTORCH}:jar:linux-x86_64",
        f"ai.djl.pytorch:pytorch-jni:{PYTORCH}-0.32.0",
    ),
    alone=True,
)


def recipe(ml: bool) -> list[Part]:
    """All folders; with ``ml`` also ML Commons and PyTorch's native libraries."""
    parts = [
        *_CORE,
        *(
            Part(f"modules/{m.name}", (f"org.opensearch.plugin:{m.artefact}:{VERSION}",))
            for m in MODULES
        ),
        *(
            Part(
                f"plugins/{name}",
                (f"org.opensearch.plugin:{name}:{PLUGIN_VERSION}:zip",),
                alone=True,
            )
            for name in (*_PLUGINS, *([_ML_PLUGIN] if ml else []))
        ),
    ]
    return [*parts, ML_NATIVES] if ml else parts
