"""A tower's graph in onnxruntime: what it asks for, and which of its outputs is the vector."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from steelyard.encoders.documents.onnx.settings import SETTINGS
from steelyard.errors import InputError, first_line, needs_extra

INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
STATES = ("token_embeddings", "last_hidden_state")
READY = "sentence_embedding"


def open_session(path: Path, device: str | None, threads: int | None) -> Any:
    """An onnxruntime session; arguments as of ``OnnxEncoder``."""
    with needs_extra("onnx"):
        import onnxruntime  # type: ignore[import-untyped]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads or hasattr(os, "sched_getaffinity"):
        options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device not in (None, "cpu", "cuda") or (device == "cuda" and not cuda):
        raise InputError(
            f"device {device!r}; onnxruntime here has cpu{' and cuda' if cuda else ''}",
            "choose another device, or install onnxruntime-gpu",
        )
    providers: list[Any] = ["CPUExecutionProvider"]
    if cuda and device != "cpu":  # TF32 has 10 bits where float32 has 23
        providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": "0"}))
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        message = f"onnxruntime cannot open {path}: {first_line(error)}"
        raise InputError(message, "copy or export it again") from error


def graph_inputs(session: Any, path: Path) -> dict[str, str]:
    """Which of our inputs the graph asks for, and as what."""
    types = {"tensor(int64)": "int64", "tensor(int32)": "int32"}
    asked = {node.name: node.type for node in session.get_inputs()}
    strange = [f"{n} {t}" for n, t in asked.items() if n not in INPUTS or t not in types]
    if strange or "input_ids" not in asked:
        message = f"{path} asks for {strange or sorted(asked)}, a tower gives {INPUTS}"
        raise InputError(message, "export for feature extraction, without past keys and values")
    return {name: types[kind] for name, kind in asked.items()}


def choose_output(ranks: dict[str, int], pooling: str | None, where: Path) -> tuple[str, str]:
    """The output to take, and its pooling; BERT's ``pooler_output`` is no sentence vector."""
    states = next((name for name in (*STATES, *ranks) if ranks.get(name) == 3), None)
    ready = READY if ranks.get(READY) == 2 else None
    if ready is None and states is None:
        ready = next((name for name, rank in ranks.items() if rank == 2), None)
    if pooling in (None, "model"):
        if ready:
            return ready, "model"
        if states:
            raise InputError(
                f"{where} gives token states ({states}) and nothing says how to pool them",
                f"give pooling cls, mean or last, as the model's card says, or write {SETTINGS}",
            )
    elif states:
        return states, str(pooling)
    raise InputError(
        f"pooling {pooling!r}, {where} gives {ranks} (output: dimensions)",
        "pooling is 'model' for 2 dimensions; token states have 3",
    )
