"""A LoRA adapter on the backbone: what learns, and how it is written.

Written in peft's own layout, for the backbone, so that ``--adapter`` of every command takes it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from steelyard.encoders.causal.source import ADAPTER_CONFIG, ADAPTER_WEIGHTS, OTHER_SCALING
from steelyard.encoders.json_object import read_json
from steelyard.errors import InputError, needs_extra
from steelyard.training.settings import AdapterSettings

_BACKBONE, _WHOLE_MODEL = "base_model.model.", "base_model.model.model."
"""How names of weights begin, by what the adapter was written for."""

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.(.+)$")


def add_adapter(backbone: Any, settings: AdapterSettings, seed: int = 0) -> Any:
    """Put an adapter into the linear layers of a backbone, in place; nothing else learns.

    Args:
        backbone: a transformers model without its head, its layers at ``layers.N``.
        settings: see there.
        seed: of A; B starts at zero, so that the first step sees the model as it is.

    Returns:
        peft's model around the same backbone, which writes it.

    Raises:
        InputError: no linear layer is left to adapt.
    """
    with needs_extra("train"):
        from peft import LoraConfig, PeftModel
        from peft.tuners.tuners_utils import BaseTunerLayer

    found = [
        match
        for name, module in backbone.named_modules()
        if isinstance(module, torch.nn.Linear) and (match := _LAYER.search(name))
    ]
    layers = sorted({int(match[1]) for match in found})
    adapted = [layer for layer in layers if layer >= settings.first_layer]
    if not adapted:
        raise InputError(
            f"the adapter starts at layer {settings.first_layer}, the model has linear layers in "
            f"{len(layers)}",
            "start lower" if layers else "give a model whose layers are at layers.N",
        )
    backbone.requires_grad_(requires_grad=False)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=sorted({match[2] for match in found if int(match[1]) in adapted}),
        layers_to_transform=adapted,
        layers_pattern="layers",
    )
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        adapted = PeftModel(backbone, config)
    finally:
        torch.set_rng_state(state)
    for module in backbone.modules():
        if isinstance(module, BaseTunerLayer):
            # Inputs would be copied to the adapter's float32 for every layer: autocast casts the
            # small adapter instead.
            layer: Any = module
            layer.cast_input_dtype_enabled = False
    return adapted


def load_adapter(adapted: Any, folder: Path) -> None:
    """Begin with the weights of a trained adapter.

    Args:
        adapted: what ``add_adapter`` returned.
        folder: of an adapter of the same shape, written for the backbone or the whole model.

    Raises:
        InputError: the file cannot be read, or the shapes or the scaling differ.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = adapted.peft_config["default"]
    written = read_json(folder / ADAPTER_CONFIG)
    scale = written.get("lora_alpha"), written.get("r")
    if scale != (config.lora_alpha, config.r):
        raise InputError(
            f"{folder} has alpha {scale[0]} and rank {scale[1]}, the run {config.lora_alpha} and "
            f"{config.r}",
            f"give --alpha {scale[0]} --rank {scale[1]}",
        )
    if scaled := [name for name in OTHER_SCALING if written.get(name)]:
        raise InputError(
            f"{folder} is scaled by {', '.join(scaled)}, the run by alpha / rank alone",
            "begin with a plain LoRA adapter",
        )
    try:
        weights = load_file(str(folder / ADAPTER_WEIGHTS))
    except (SafetensorError, OSError) as error:
        told = f"cannot read {folder / ADAPTER_WEIGHTS}: {error}"
        raise InputError(told, "copy or train the adapter anew") from error
    if all(name.startswith(_WHOLE_MODEL) for name in weights):
        weights = {
            f"{_BACKBONE}{name.removeprefix(_WHOLE_MODEL)}": value
            for name, value in weights.items()
        }
    found = {name: tuple(value.shape) for name, value in weights.items()}
    needed = {
        name: tuple(value.shape) for name, value in get_peft_model_state_dict(adapted).items()
    }
    if found != needed:
        other = min(found.items() ^ needed.items())
        raise InputError(
            f"{folder} has {len(found)} matrices, the run {len(needed)}; {other[0]} differs",
            "give the model and the --first-layer that it was trained with",
        )
    set_peft_model_state_dict(adapted, weights)


def trained_parameters(backbone: Any) -> dict[str, torch.nn.Parameter]:
    """What learns, by its name in the backbone."""
    return {
        name: parameter
        for name, parameter in backbone.named_parameters()
        if parameter.requires_grad
    }


def write_adapter(adapted: Any, folder: Path, base: str, precision: str = "float16") -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors``.

    Args:
        adapted: what ``add_adapter`` returned.
        folder: made if it is not there.
        base: what the adapter is for, as ``--model`` takes it.
        precision: dtype of the written weights.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = adapted.peft_config["default"]
    config.base_model_name_or_path, config.inference_mode = base, True
    config.save_pretrained(str(folder))
    config.inference_mode = False
    dtype = getattr(torch, precision)
    weights = {
        name: value.detach().to("cpu", dtype).contiguous()
        for name, value in get_peft_model_state_dict(adapted).items()
    }
    partial = folder / f".{ADAPTER_WEIGHTS}.tmp"
    save_file(weights, str(partial), metadata={"format": "pt"})
    partial.replace(folder / ADAPTER_WEIGHTS)
    _without_empty(folder / ADAPTER_CONFIG)


def _without_empty(path: Path) -> None:
    """Drop peft's fields that say nothing, so that the file can be read and compared."""
    import json

    value = json.loads(path.read_text(encoding="utf-8"))
    kept = {name: value[name] for name in sorted(value) if value[name] not in (None, {}, [], "")}
    kept["target_modules"] = sorted(kept["target_modules"])
    path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
