"""What things are called in a cluster: the names alone say which pack they belong to."""

from __future__ import annotations

import re

from steelyard.plugin.engine import VECTOR_ARMS

PREFIX = "steelyard-"
_PIPELINE = re.compile(rf"{PREFIX}(pack-[0-9a-f]+)")
_MODEL = re.compile(rf"{PREFIX}(pack-[0-9a-f]+)-({'|'.join(VECTOR_ARMS)})")


def model_name(pack_id: str, arm: str) -> str:
    """Of a pack's model of one arm."""
    return f"{PREFIX}{pack_id}-{arm}"


def pipeline_name(pack_id: str) -> str:
    """Of a pack's search pipeline."""
    return f"{PREFIX}{pack_id}"


def model_of(name: str) -> tuple[str, str] | None:
    """Pack id and arm of a model's name; None of a model that is not ours."""
    found = _MODEL.fullmatch(name)
    return (found[1], found[2]) if found else None


def pack_of(pipeline: str) -> str | None:
    """Pack id of a pipeline's name; None of a pipeline that is not ours."""
    found = _PIPELINE.fullmatch(pipeline)
    return found[1] if found else None
