"""LoRA adapters in peft's layout, merged into a model: encoding then costs what the base costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from steelyard.encoders.causal.source import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from steelyard.encoders.json_object import read_json
from steelyard.errors import InputError, SteelyardError, first_line, needs_extra


def merge_adapter(model: Any, adapter: Path) -> None:
    """Merge an adapter into a causal model, in place.

    The adapter may be written for the whole model, as LightRetriever's hybrid checkpoints are, or
    for its backbone. One that carries embeddings of a grown vocabulary grows the model's.

    Raises:
        InputError: the adapter is damaged, or does not fit the model.
    """
    try:
        _merge(model, adapter)
    except SteelyardError:
        raise
    except Exception as error:  # damaged files make each library raise its own
        raise InputError(
            f"cannot merge the adapter {adapter}: {first_line(error)}",
            "get the adapter again, and give the base model that it was made for",
        ) from error


def _merge(model: Any, adapter: Path) -> None:
    with needs_extra("index"):
        from peft import PeftModel
        from safetensors import safe_open

    config = read_json(adapter / ADAPTER_CONFIG)
    with safe_open(adapter / ADAPTER_WEIGHTS, framework="pt") as file:
        shapes = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    remedy = f"it was made for {config.get('base_model_name_or_path')!r}: give that model"
    target = _target(model, set(shapes), adapter, remedy)
    modules = dict(target.named_modules())
    for name, shape in shapes.items():
        module = modules[_module_of(name)]
        weight = getattr(module, "weight", None)
        if ".lora_" not in name:
            if module is model.get_input_embeddings():
                model.resize_token_embeddings(shape[0], mean_resizing=False)
            continue
        axis = 1 if name.endswith("lora_A.weight") else 0
        if weight is not None and shape[axis] != weight.shape[axis]:
            raise InputError(
                f"{adapter}: {name} is for a layer of width {shape[axis]}, the model's has "
                f"{weight.shape[axis]}",
                remedy,
            )
    wrapped = PeftModel.from_pretrained(target, str(adapter))
    adapted = {name for name, module in target.named_modules() if hasattr(module, "lora_A")}
    given = {_module_of(name) for name in shapes if ".lora_" in name}
    if adapted != given:
        first = sorted(adapted ^ given)[0]
        raise InputError(
            f"{adapter} adapts {len(given)} layers, the model has {len(adapted)} of their kind: "
            f"{first!r} is not in both",
            remedy,
        )
    wrapped.merge_and_unload(safe_merge=True)


def _target(model: Any, names: set[str], adapter: Path, remedy: str) -> Any:
    """The whole model or its backbone: where every weight of the adapter has its place."""
    wanted = {_module_of(name) for name in names}
    for candidate in (model, model.base_model):
        if wanted and wanted <= {name for name, _ in candidate.named_modules()}:
            return candidate
    known = {name for part in (model, model.base_model) for name, _ in part.named_modules()}
    strange = next(iter(sorted(wanted - known)), "no weight")
    raise InputError(f"{adapter} does not fit the model: {strange!r} has no place", remedy)


def _module_of(name: str) -> str:
    """``base_model.model.layers.0.q_proj.lora_A.weight`` -> ``layers.0.q_proj``."""
    return name.removeprefix("base_model.model.").partition(".lora_")[0].removesuffix(".weight")
