"""Whether the cluster encodes as the pack does: a few texts, through both models."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from steelyard.encoders.export.formats import PROBES, TOLERANCES
from steelyard.encoders.export.opensearch_models import MIN_WEIGHT, token_weights
from steelyard.encoders.export.source import ExportSource
from steelyard.errors import EngineError
from steelyard.plugin.opensearch.cluster.models import predict
from steelyard.plugin.opensearch.connection import Connection

_WEIGHT_TOLERANCE = 1e-5


def verify(connection: Connection, source: ExportSource, models: Mapping[str, str]) -> float:
    """Largest difference of the dense vectors, in a component.

    Args:
        connection: to the cluster.
        source: the pack as exported.
        models: model ids by arm, deployed.

    Raises:
        EngineError: more than the export's own tolerance, or other terms.
    """
    found = np.array(predict(connection, models["dense"], PROBES, dense=True), np.float32)
    expected = source.expected(PROBES)
    same_shape = found.shape == expected.shape
    difference = float(np.abs(found - expected).max()) if same_shape else float("inf")
    if not difference <= TOLERANCES[source.dtype]:
        raise EngineError(
            f"the dense model in the cluster answers {list(found.shape)} numbers that differ "
            f"from the pack's by {difference:.3g}, allowed are {TOLERANCES[source.dtype]:g}",
            "report this; nothing searches with the model",
        )
    rows = predict(connection, models["sparse"], PROBES, dense=False)
    weights, _ = token_weights(source)
    for text, row, ids in zip(
        PROBES, rows, source.encoder.encode_sparse(PROBES).rows(), strict=True
    ):
        names = [source.encoder.tokenizer.id_to_token(i) or "" for i in ids[0].tolist()]
        wanted = {name: weights[name] for name in names if weights[name] > MIN_WEIGHT}
        given = {name: weight for name, weight in row.items() if weight > MIN_WEIGHT}
        if given.keys() != wanted.keys() or any(
            abs(weight - wanted[name]) > _WEIGHT_TOLERANCE * max(1.0, weight)
            for name, weight in given.items()
        ):
            raise EngineError(
                f"the sparse model in the cluster answers {len(given)} terms to {text!r}, the "
                f"pack {len(wanted)}, or other weights",
                "report this; nothing searches with the model",
            )
    return difference
