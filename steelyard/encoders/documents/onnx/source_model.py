"""The model that a tower is made from: opened in float32, its tokenizer, its licence files."""

from __future__ import annotations

import contextlib
import importlib.metadata
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from steelyard.encoders.documents.model_source import locate_model
from steelyard.errors import InputError, first_line, needs_extra

TORCH_POOLING = {"cls": "cls", "mean": "mean", "last": "lasttoken"}
"""Poolings that are done outside the graph, by what sentence-transformers calls them."""
LICENCES = ("licen", "copying", "notice")


def local_folder(model: str) -> Path:
    """The model's folder, fetched from the hub if it is not on this machine."""
    found = locate_model(model)
    if Path(found).is_dir():
        return Path(found).resolve()
    with needs_extra("index"):
        from huggingface_hub import snapshot_download
    try:
        return Path(snapshot_download(found, ignore_patterns=["onnx/*", "openvino/*", "*.h5"]))
    except Exception as error:  # network, names and rights fail in many classes
        message = f"cannot fetch the model {model!r}: {first_line(error)}"
        raise InputError(message, "give a folder, an installed package or a hub name") from error


def open_model(folder: Path, name: str, asked: str | None) -> tuple[Any, str]:
    """The model in float32, and the pooling: ``model`` where a Dense or such follows it.

    Args:
        folder: of the model.
        name: what the user calls it, for messages.
        asked: pooling, a key of ``TORCH_POOLING``; None takes the model's own.

    Raises:
        InputError: it cannot be opened, or cannot be a tower.
    """
    with needs_extra("index"):
        import transformers
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    transformers.utils.logging.disable_progress_bar()
    complete = (folder / "modules.json").is_file()
    if not complete and asked is None:
        message = f"{folder} is no sentence-transformers folder: nothing says how it pools"
        raise InputError(message, "give --pooling cls, mean or last, as the model's card says")
    try:
        parts = None if complete else [Transformer(str(folder))]
        found = SentenceTransformer(str(folder) if complete else None, modules=parts, device="cpu")
    except Exception as error:  # whatever a foreign folder makes the libraries raise
        message = f"cannot open the model {name!r}: {first_line(error)}"
        raise InputError(message, "give a (sentence-)transformers model") from error
    model = found.float().eval()
    if not isinstance(model[0], Transformer):
        raise InputError(f"{name} starts with {type(model[0]).__name__}", "no transformer")
    own = [part for part in model if isinstance(part, Pooling)]
    if any(not part.include_prompt for part in own):
        raise InputError(f"{name} pools without its prompt", "a tower cannot do that")
    mode = own[0].pooling_mode if own else None
    known = next((ours for ours, theirs in TORCH_POOLING.items() if theirs == mode), None)
    rest = {type(part).__name__ for part in model} - {"Transformer", "Pooling", "Normalize"}
    if rest and asked:
        raise InputError(f"{name} has {sorted(rest)} after pooling", "leave --pooling out")
    pooling = asked or known
    if rest or pooling is None:
        return model, "model"
    pool = Pooling(model[0].get_embedding_dimension(), TORCH_POOLING[pooling])
    model = SentenceTransformer(modules=[model[0], pool], device="cpu", prompts=model.prompts)
    return model.eval(), pooling


def tokenizer_json(model: Any, max_length: int) -> str:
    """The tower's tokenizer.json: it cuts and pads as the model does."""
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    pad = model.tokenizer.pad_token_id if backend is not None else None
    if backend is None or pad is None:
        lacks = "fast tokenizer" if backend is None else "padding token"
        raise InputError(f"the model has no {lacks}", "add one to its tokenizer files")
    tokenizer = Tokenizer.from_str(backend.to_str())
    tokenizer.enable_truncation(max_length)
    tokenizer.enable_padding(pad_id=pad, pad_token=model.tokenizer.pad_token)
    return str(tokenizer.to_str(pretty=True))


def licence_files(model: str, folder: Path) -> list[Path]:
    """Licence texts of the folder; those of the package that carries it, if it has none."""
    files = [file for file in folder.iterdir() if file.is_file()]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError):  # no package
        files += [Path(str(f.locate())) for f in importlib.metadata.files(model) or ()]
    found = {f.name: f for f in reversed(files) if f.name.lower().startswith(LICENCES)}
    return [file for file in found.values() if file.is_file()]
