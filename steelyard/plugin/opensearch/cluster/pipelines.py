"""A pack's search pipeline, and the indexes whose default it is.

The pipeline names the models, an index names the pipeline, the alias names the index: so that what
encodes a query switches together with what it is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steelyard.encoders.pack.metadata import PackMetadata
from steelyard.plugin.engine import DENSE
from steelyard.plugin.fusion import Fusion
from steelyard.plugin.opensearch.bodies import pipeline
from steelyard.plugin.opensearch.cluster.names import PREFIX
from steelyard.plugin.opensearch.connection import Connection
from steelyard.plugin.opensearch.mapping import SPARSE as SPARSE_FIELD

DEFAULT = "index.search.default_pipeline"
NO_PIPELINE = "_none"
_ENRICHER = "neural_query_enricher"


def pipeline_body(
    metadata: PackMetadata, models: Mapping[str, str], columns: Mapping[str, str]
) -> dict[str, Any]:
    """Models by field for query_text, and the pack's fusion for a hybrid of dense and sparse.

    Args:
        metadata: of the pack.
        models: model ids by arm.
        columns: what an adopted index calls them.
    """
    fields = {arm: columns.get(arm, arm) for arm in (DENSE, SPARSE_FIELD)}
    fusion = Fusion.of_pack(metadata.fusion)
    by_field = {
        **{fields[arm]: models[arm] for arm in fields},
        DENSE: models[DENSE],
        SPARSE_FIELD: models[SPARSE_FIELD],
    }
    enricher = {"default_model_id": models[DENSE], "neural_field_default_id": by_field}
    return {
        "description": f"Queries of {metadata.name} ({metadata.pack_id}), by Steelyard",
        "request_processors": [{_ENRICHER: enricher}],
        **pipeline(fusion, fusion.weights),
    }


def put_pipeline(connection: Connection, name: str, body: dict[str, Any]) -> None:
    """Make or replace a pipeline, in one atomic request."""
    connection.request(f"make the pipeline {name}", "PUT", f"/_search/pipeline/{name}", body)


def delete_pipeline(connection: Connection, name: str) -> None:
    """Remove a pipeline; no error where there is none."""
    path = f"/_search/pipeline/{name}"
    connection.request(f"remove the pipeline {name}", "DELETE", path, missing_ok=True)


def find_pipelines(connection: Connection, name: str = f"{PREFIX}*") -> dict[str, dict[str, Any]]:
    """Our pipelines by name; one name, or all."""
    path = f"/_search/pipeline/{name}"
    answer = connection.request("look up pipelines", "GET", path, missing_ok=True)
    return dict(answer or {})


def models_in(body: Mapping[str, Any]) -> dict[str, str]:
    """Model ids by arm of a pipeline that ``pipeline_body`` made; empty if it was changed."""
    for processor in body.get("request_processors", []):
        by_field = processor.get(_ENRICHER, {}).get("neural_field_default_id")
        if isinstance(by_field, dict) and {DENSE, SPARSE_FIELD} <= by_field.keys():
            return {DENSE: str(by_field[DENSE]), SPARSE_FIELD: str(by_field[SPARSE_FIELD])}
    return {}


def default_pipelines(connection: Connection, indexes: str = "*") -> dict[str, str]:
    """The default pipeline of each index that has one.

    Args:
        connection: to the cluster.
        indexes: a name, an alias, or a pattern.
    """
    answer = connection.request(
        "look up default pipelines",
        "GET",
        f"/{indexes}/_settings/{DEFAULT}",
        parameters={"flat_settings": "true", "expand_wildcards": "all"},
        missing_ok=True,
    )
    found = {
        name: str(value["settings"].get(DEFAULT, NO_PIPELINE))
        for name, value in (answer or {}).items()
    }
    return {name: default for name, default in found.items() if default != NO_PIPELINE}


def set_default(connection: Connection, index: str, name: str | None) -> None:
    """Give an index a default pipeline; None takes it away."""
    body = {"index": {"search.default_pipeline": name}}
    connection.request(f"set the pipeline of {index}", "PUT", f"/{index}/_settings", body)


def aliases_of(connection: Connection, indexes: list[str]) -> dict[str, list[str]]:
    """The aliases of each index."""
    if not indexes:
        return {}
    path = f"/{','.join(indexes)}/_alias"
    answer = connection.request("look up aliases", "GET", path, missing_ok=True)
    return {name: sorted(found.get("aliases", {})) for name, found in (answer or {}).items()}
