"""Opening a causal language model: weights, adapter, precision, device, LM head."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steelyard.encoders.causal.source import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CausalFiles
from steelyard.errors import InputError, first_line, needs_extra

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class CausalModel:
    """An opened model.

    Attributes:
        backbone: gives ``last_hidden_state`` after the final norm, LoRA layers in place.
        head: the LM head; None where the model has none.
        logit_scale, logit_cap: what the family does to the head's output: ``cap x tanh(scale x
            logits / cap)``; both keep the order, so they may follow the maximum.
        device: where inputs go.
        precision: dtype of the weights, by name.
        dims: hidden size.
        rows: rows of the embedding matrix.
        family: transformers' ``model_type``.
    """

    backbone: Any
    head: Any
    logit_scale: float
    logit_cap: float | None
    device: torch.device
    precision: str
    dims: int
    rows: int
    family: str


def resolve_precision(files: CausalFiles, precision: str, device: str | None = None) -> str:
    """What ``auto`` means for a model here: the checkpoint's own dtype, where the device has it.

    Raises:
        InputError: an unknown precision, or an unreadable configuration.
    """
    if precision not in PRECISIONS:
        raise InputError(
            f"unknown precision {precision!r}", f"choose one of {', '.join(PRECISIONS)}"
        )
    if precision != "auto":
        return precision
    if files.gguf_file:
        return "float32"
    with needs_extra("index"):
        from transformers import AutoConfig
    try:
        config = AutoConfig.from_pretrained(str(files.folder))
    except Exception as error:  # whatever a foreign folder makes the library raise
        raise _unreadable(files, error) from error
    own = str(config.get_text_config().dtype or "float32").removeprefix("torch.")
    if own not in PRECISIONS or (_device(device).type == "cpu" and not _cpu_has(own)):
        return "float32"
    return own


def open_causal_model(
    files: CausalFiles, *, precision: str = "auto", device: str | None = None
) -> CausalModel:
    """Load a model for encoding.

    Args:
        files: from ``locate_causal_model``.
        precision: dtype of the weights; ``auto`` is the checkpoint's own (float32 on a processor
            that has no bfloat16 arithmetic).
        device: a torch device; None takes CUDA, then MPS, then the CPU; ``auto`` spreads a model
            over all GPUs.

    Raises:
        InputError: the model, the adapter or a setting cannot be used.
    """
    with needs_extra("index"):
        import torch
        import transformers
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    place = _device(device)
    chosen = resolve_precision(files, precision, device)
    options: dict[str, Any] = {"dtype": getattr(torch, chosen), "output_loading_info": True}
    if files.gguf_file:
        options["gguf_file"] = files.gguf_file
    else:
        options["use_safetensors"] = True
    if device == "auto":
        options["device_map"] = "auto"
    try:
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            str(files.folder), **options
        )
    except Exception as error:  # whatever a foreign folder makes the library raise
        raise _unreadable(files, error) from error
    head = _head(model, set(report["missing_keys"]), files)
    backbone = model.base_model
    if files.adapter is not None:
        backbone = _with_adapter(model, files.adapter)
    model.eval()
    if device != "auto":
        model.to(place)
    config = model.config.get_text_config()
    return CausalModel(
        backbone=backbone,
        head=head,
        logit_scale=_logit_scale(config),
        logit_cap=getattr(config, "final_logit_softcapping", None),
        device=model.get_input_embeddings().weight.device,
        precision=str(model.dtype).removeprefix("torch."),
        dims=int(config.hidden_size),
        rows=int(model.get_input_embeddings().weight.shape[0]),
        family=str(model.config.model_type),
    )


def _device(device: str | None) -> torch.device:
    import torch

    if device not in (None, "auto"):
        try:
            return torch.device(str(device))
        except RuntimeError as error:
            raise InputError(f"unknown device {device!r}", "cpu, cuda, cuda:1, mps") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _cpu_has(dtype: str) -> bool:
    """Whether the processor computes in a half-width dtype, rather than emulate it."""
    flags = Path("/proc/cpuinfo")
    wanted = {"avx512_bf16", "amx_bf16"} if dtype == "bfloat16" else {"avx512_fp16"}
    return flags.is_file() and bool(wanted & set(flags.read_text().split()))


def _head(model: Any, missing: set[str], files: CausalFiles) -> Any:
    """The LM head; None if its weights were not in the checkpoint but made up while loading."""
    head = model.get_output_embeddings()
    inside = {name for name, module in model.named_modules() if module is head}
    if any(name.rpartition(".")[0] in inside for name in missing):
        head, missing = None, {n for n in missing if n.rpartition(".")[0] not in inside}
    if missing:
        raise InputError(
            f"{files.folder} lacks {len(missing)} weights, {sorted(missing)[0]!r} among them",
            "the checkpoint is incomplete, or not a causal language model",
        )
    return head


def _logit_scale(config: Any) -> float:
    """Cohere multiplies logits, Granite divides them."""
    if divisor := getattr(config, "logits_scaling", None):
        return 1.0 / float(divisor)
    return float(getattr(config, "logit_scale", None) or 1.0)


def _with_adapter(model: Any, adapter: Path) -> Any:
    """Put a LoRA adapter into a model; merged, so that encoding costs what the base costs."""
    with needs_extra("index"):
        from peft import PeftModel
        from safetensors import safe_open

    target = None
    with safe_open(adapter / ADAPTER_WEIGHTS, framework="pt") as file:
        shapes = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    # LightRetriever's adapters are written for the backbone, most others for the whole model.
    for candidate in (model.base_model, model):
        modules = dict(candidate.named_modules())
        if all(_module_of(name) in modules for name in shapes):
            target = candidate
            break
    base = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8")).get(
        "base_model_name_or_path"
    )
    remedy = f"the adapter was made for {base!r}: give that model"
    if target is None or not shapes:
        known = {name for name, _ in model.base_model.named_modules()}
        strange = next((name for name in shapes if _module_of(name) not in known), "no weight")
        raise InputError(f"{adapter} does not fit the model: {strange!r} has no place", remedy)
    for name, shape in shapes.items():
        weight = getattr(modules[_module_of(name)], "weight", None)
        if weight is None or not name.endswith(("lora_A.weight", "lora_B.weight")):
            continue
        axis = 1 if name.endswith("lora_A.weight") else 0
        if shape[axis] != weight.shape[axis]:
            raise InputError(
                f"{adapter}: {name} is for a layer of width {shape[axis]}, the model's has "
                f"{weight.shape[axis]}",
                remedy,
            )
    try:
        merged = PeftModel.from_pretrained(target, str(adapter)).merge_and_unload(safe_merge=True)
    except ValueError as error:  # safe_merge found NaN
        raise InputError(f"{adapter}: {error}", "get the adapter again") from error
    return merged if target is model.base_model else merged.base_model


def _module_of(name: str) -> str:
    """``base_model.model.layers.0.q_proj.lora_A.weight`` -> ``layers.0.q_proj``."""
    return name.removeprefix("base_model.model.").partition(".lora_")[0].removesuffix(".weight")


def _unreadable(files: CausalFiles, error: Exception) -> InputError:
    name = files.folder / files.gguf_file if files.gguf_file else files.folder
    return InputError(
        f"cannot open {name} as a causal language model: {first_line(error)}",
        "give a folder with config.json and safetensors, or a GGUF file",
    )
