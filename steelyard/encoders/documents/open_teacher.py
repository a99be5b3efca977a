"""A frozen embedding model by what was given: an ONNX tower's folder, or sentence-transformers."""

from __future__ import annotations

from collections.abc import Mapping

from steelyard.encoders.documents.onnx.encoder import OnnxEncoder
from steelyard.encoders.documents.onnx.folder import is_tower
from steelyard.encoders.documents.protocol import Teacher
from steelyard.encoders.documents.sentence_transformers import SentenceTransformersEncoder
from steelyard.errors import InputError


def open_teacher(
    model: str,
    *,
    revision: str | None = None,
    precision: str = "auto",
    prompts: Mapping[str, str] | None = None,
) -> Teacher:
    """Open a model to distill.

    Args:
        model: folder of an ONNX tower, or what ``SentenceTransformersEncoder`` takes.
        revision: hub revision; an ONNX tower has none.
        precision: of the document encoder; an ONNX tower runs in float32.
        prompts: texts put before a ``document`` or ``query``; one not named is the model's own.

    Raises:
        InputError: the model or a setting cannot be used.
    """
    if not is_tower(model):
        return SentenceTransformersEncoder(
            model, revision=revision, precision=precision, prompts=prompts
        )
    if revision is not None:
        raise InputError(f"revision {revision!r} of the ONNX tower {model}", "leave it out")
    return OnnxEncoder(model, precision=precision, prompts=prompts)
