"""How a tower is made from a model that torch runs.

The new tower is compared with the model; the folder takes its name only when they agree.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from steelyard.encoders.documents.onnx.encoder import OnnxEncoder
from steelyard.encoders.documents.onnx.folder import MODEL, TOKENIZER
from steelyard.encoders.documents.onnx.optimum_method import export_with_optimum
from steelyard.encoders.documents.onnx.settings import (
    PROMPTS,
    SETTINGS,
    TowerSettings,
    write_settings,
)
from steelyard.encoders.documents.onnx.source_model import (
    TORCH_POOLING,
    licence_files,
    local_folder,
    open_model,
    tokenizer_json,
)
from steelyard.encoders.documents.onnx.torch_method import export_with_torch
from steelyard.encoders.folder_swap import new_folder
from steelyard.errors import InputError, SteelyardError

METHODS = ("torch", "optimum")
OPSET = 18
TOLERANCE = 1e-4
"""Largest difference, in any number of a unit vector, between a tower and its model."""
PROBES = (
    "a",
    "Heavy documents, weightless queries.",
    "Ünïcödé, 東京 and mRNA: 5-HT2A (p < 0.05)?",
    "The arm of a steelyard is LONG on one side and short on the other. " * 8,
)


@dataclass(frozen=True, slots=True)
class ExportJob:
    """What to export and how.

    Attributes:
        model: a (sentence-)transformers folder, installed package or hub name.
        pooling: ``cls``, ``mean`` or ``last``; None takes the model's own, which a plain
            transformers folder does not have.
        max_length: cut texts to this many tokens; None is the model's own limit.
        prompts: ``document`` and ``query``; one not named is the model's own.
        method: ``torch`` or ``optimum``.
    """

    model: str
    pooling: str | None = None
    max_length: int | None = None
    prompts: dict[str, str] = field(default_factory=dict)
    method: str = "torch"

    def __post_init__(self) -> None:
        """Refuse settings before a model is opened."""
        if self.method not in METHODS:
            raise InputError(f"unknown method {self.method!r}", f"known: {', '.join(METHODS)}")
        if self.pooling not in (None, *TORCH_POOLING):
            known = ", ".join(TORCH_POOLING)
            raise InputError(f"unknown pooling {self.pooling!r}", f"known: {known}")


@dataclass(frozen=True, slots=True)
class ExportedTower:
    """What was made: ``bytes`` of the graph and its external data, ``dims`` of its vectors.

    ``max_difference`` is the largest between its and the model's unit vectors, over the probes.
    """

    folder: Path
    settings: TowerSettings
    dims: int
    bytes: int
    max_difference: float


def export_tower(job: ExportJob, out: Path, *, overwrite: bool = False) -> ExportedTower:
    """Make a tower folder and prove that it gives the model's vectors.

    Args:
        job: what and how.
        out: the folder; it appears when it is whole and verified.
        overwrite: replace a tower that is there.

    Raises:
        InputError: the place is taken, the model cannot be opened, or has no ONNX form.
        SteelyardError: the graph differs from the model by more than ``TOLERANCE``.
    """
    out = Path(out)
    _refuse_taken(out, overwrite)
    folder = local_folder(job.model)
    model, pooling = open_model(folder, job.model, job.pooling)
    model.max_seq_length = length = int(job.max_length or model.max_seq_length or 512)
    own = {
        "document": model.prompts.get("passage"),
        **{k: t for k, t in model.prompts.items() if t},
    }
    prompts = {**{role: own.get(role) or "" for role in PROMPTS}, **job.prompts}
    settings = TowerSettings(pooling, prompts, length, job.model)
    with new_folder(out) as made:
        (made / TOKENIZER).write_text(tokenizer_json(model, length), encoding="utf-8")
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(folder / "config.json", made)
        for file in licence_files(job.model, folder):
            shutil.copy(file, made)
        if job.method == "torch":
            how = export_with_torch(model, pooling, made / MODEL, OPSET)
        else:
            how = export_with_optimum(folder, pooling, made, OPSET)
        write_settings(made, settings)
        tower = OnnxEncoder(str(made), device="cpu")
        difference = _difference(model, tower, settings)
        settings = replace(settings, export={**how, "max_difference": difference})
        write_settings(made, settings)
        size = sum(f.stat().st_size for f in made.iterdir() if f.name.startswith(MODEL))
    return ExportedTower(out, settings, tower.dims, size, difference)


def _refuse_taken(path: Path, overwrite: bool) -> None:
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / SETTINGS).is_file():
        raise InputError(f"{path} exists and is not an exported tower", "choose another place")
    if not overwrite:
        raise InputError(f"{path} already holds a tower", "add --overwrite to replace it")


def _difference(model: Any, tower: Any, settings: TowerSettings) -> float:
    """Largest difference between the tower's and the model's unit vectors, over the probes."""
    texts = [*PROBES, " ".join(["over"] * min(2 * (settings.max_length or 0), 1024))]
    options = {"normalize_embeddings": True, "show_progress_bar": False, "batch_size": len(texts)}
    theirs = [model.encode(texts, prompt=settings.prompts[role], **options) for role in PROMPTS]
    ours = [tower.encode_document(texts).dense, tower.encode_query(texts)]
    differences = np.abs(np.concatenate(ours) - np.concatenate(theirs))
    largest = float(np.nan_to_num(differences, nan=np.inf).max())
    if largest > TOLERANCE:
        message = f"the new graph differs from the model by {largest:.2g}, over {TOLERANCE:g}"
        raise SteelyardError(message, "try the other --method, or keep the model as it is")
    return largest
