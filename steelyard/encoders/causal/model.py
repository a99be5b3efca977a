"""Opening a causal language model: weights, adapter, precision, device, LM head."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steelyard.encoders.causal.adapter import merge_adapter
from steelyard.encoders.causal.source import CausalFiles
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
        config = AutoConfig.from_pretrained(str(files.folder), trust_remote_code=False)
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
    options: dict[str, Any] = {
        "dtype": getattr(torch, chosen),
        "output_loading_info": True,
        "trust_remote_code": False,
    }
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
    has_head = _has_head(model, set(report["missing_keys"]), files)
    if files.adapter is not None:
        merge_adapter(model, files.adapter)
    model.eval()
    if device != "auto":
        _move(model, place)
    config = model.config.get_text_config()
    return CausalModel(
        backbone=model.base_model,
        head=model.get_output_embeddings() if has_head else None,
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


def _move(model: Any, place: torch.device) -> None:
    """Put the weights where they will be used."""
    import torch

    try:
        model.to(place)
    except (RuntimeError, AssertionError, torch.OutOfMemoryError) as error:
        raise InputError(
            f"the model cannot be put on {place}: {first_line(error)}",
            "give another --device, or a narrower --precision",
        ) from error


def _has_head(model: Any, missing: set[str], files: CausalFiles) -> bool:
    """Whether the LM head's weights were in the checkpoint, not made up while loading."""
    head = model.get_output_embeddings()
    inside = {name for name, module in model.named_modules() if module is head}
    made_up = {name for name in missing if name.rpartition(".")[0] in inside}
    missing = missing - made_up
    if missing:
        raise InputError(
            f"{files.folder} lacks {len(missing)} weights, {sorted(missing)[0]!r} among them",
            "the checkpoint is incomplete, or not a causal language model",
        )
    return head is not None and not made_up


def _logit_scale(config: Any) -> float:
    """Cohere multiplies logits, Granite divides them."""
    if divisor := getattr(config, "logits_scaling", None):
        return 1.0 / float(divisor)
    return float(getattr(config, "logit_scale", None) or 1.0)


def _unreadable(files: CausalFiles, error: Exception) -> InputError:
    name = files.folder / files.gguf_file if files.gguf_file else files.folder
    return InputError(
        f"cannot open {name} as a causal language model: {first_line(error)}",
        "give a folder with config.json and safetensors, or a GGUF file",
    )
