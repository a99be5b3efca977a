"""Checkpoints of a run: what it needs to go on as if it had never stopped.

``checkpoints/step-000100/`` holds the adapter in float32, the optimiser's moments and the step;
random numbers are drawn from the seed and the step. A checkpoint is there whole or not at all; the
last two are kept. Nothing in it can run code when it is read.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from steelyard.errors import InputError, first_line

FOLDER = "checkpoints"
TENSORS, STATE = "state.safetensors", "state.json"
KEPT = 2
_MOMENTS = ("exp_avg", "exp_avg_sq")


def save_checkpoint(
    folder: Path,
    step: int,
    fingerprint: str,
    parameters: Mapping[str, torch.nn.Parameter],
    optimiser: torch.optim.AdamW,
) -> Path:
    """Write the state after ``step`` steps, and drop all but the last.

    Args:
        folder: of the run.
        step: steps done.
        fingerprint: of settings, model and data.
        parameters: what learns, by name.
        optimiser: of these parameters.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in parameters.items():
        tensors[f"weight.{name}"] = parameter.detach().cpu()
        state = optimiser.state.get(parameter, {})
        for moment in _MOMENTS:
            if moment in state:
                tensors[f"{moment}.{name}"] = state[moment].detach().cpu()
    place = folder / FOLDER / f"step-{step:06d}"
    partial = place.with_name(f".{place.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file({name: t.contiguous() for name, t in tensors.items()}, str(partial / TENSORS))
    value = {"step": step, "fingerprint": fingerprint}
    (partial / STATE).write_text(json.dumps(value) + "\n", encoding="utf-8")
    shutil.rmtree(place, ignore_errors=True)
    partial.rename(place)
    for old in _checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old)
    return place


def load_checkpoint(
    folder: Path,
    fingerprint: str,
    parameters: Mapping[str, torch.nn.Parameter],
    optimiser: torch.optim.AdamW,
) -> int:
    """Go back to the last checkpoint, if there is one.

    Returns:
        Steps done; 0 without a checkpoint.

    Raises:
        InputError: the run there has other settings, another model, data or first adapter, or the
            checkpoint is damaged.
    """
    found = _checkpoints(folder)
    if not found:
        return 0
    place = found[-1]
    try:
        value: dict[str, Any] = json.loads((place / STATE).read_text(encoding="utf-8"))
        step, theirs = int(value["step"]), str(value["fingerprint"])
        tensors = load_file(str(place / TENSORS))
    except Exception as error:  # damaged files make each library raise its own
        raise InputError(
            f"cannot read the checkpoint {place}: {first_line(error)}",
            "remove its folder: the run goes on from the one before, or starts again",
        ) from error
    if theirs != fingerprint:
        raise InputError(
            f"{folder} holds a run with other settings, another model, data or first adapter (its "
            f"fingerprint is {theirs[:12]}, this run's {fingerprint[:12]})",
            "give the same again to go on, another --out, or --overwrite",
        )
    missing = [name for name in parameters if f"weight.{name}" not in tensors]
    if missing:
        raise InputError(
            f"the checkpoint {place} lacks {len(missing)} of {len(parameters)} weights, first "
            f"{missing[0]!r}",
            "remove its folder: the run goes on from the one before, or starts again",
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"weight.{name}"])
            if f"{_MOMENTS[0]}.{name}" in tensors:
                optimiser.state[parameter] = {
                    "step": torch.tensor(float(step)),
                    **{m: tensors[f"{m}.{name}"].to(parameter.device) for m in _MOMENTS},
                }
    return step


def _checkpoints(folder: Path) -> list[Path]:
    found = (folder / FOLDER).glob("step-*")
    return sorted(found, key=lambda place: (len(place.name), place.name))
