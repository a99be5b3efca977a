"""The files of a tower: graph, external data, tokenizer, and the limits written beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from tokenizers import Tokenizer

from steelyard.encoders.json_object import read_json
from steelyard.encoders.pack.files import sha256_of
from steelyard.encoders.pack.spaces import canonical_json
from steelyard.errors import InputError, first_line, needs_extra

MODEL = "model.onnx"
TOKENIZER = "tokenizer.json"
DEFAULT_MAX_LENGTH = 512
PAD_TOKENS = ("[PAD]", "<pad>", "<|pad|>")
NO_LIMIT = 1_000_000
"""transformers writes 1e30 where a tokenizer has no limit."""
POSITIONS_AFTER_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Their positions start behind the padding's id: two of 514 are never used."""


def is_tower(model: str) -> bool:
    """Whether this is a folder with a graph and a tokenizer, to be opened by ``OnnxEncoder``."""
    folder = Path(model).expanduser()
    return (folder / MODEL).is_file() and (folder / TOKENIZER).is_file()


def open_tokenizer(path: Path) -> tuple[str, Tokenizer]:
    """The file's text, as it is, and the tokenizer in it."""
    try:
        text = path.read_text(encoding="utf-8")
        return text, Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception
        raise InputError(
            f"{path} is no tokenizer: {first_line(error)}", "copy it again"
        ) from error


def pad_id(tokenizer: Tokenizer, folder: Path) -> int:
    """What the tokenizer pads with, or its configuration says, or is called a padding token."""
    if tokenizer.padding:
        return int(tokenizer.padding["pad_id"])
    configured = read_json(folder / "tokenizer_config.json").get("pad_token")
    if isinstance(configured, dict):
        configured = configured.get("content")
    names = [configured] if isinstance(configured, str) else PAD_TOKENS
    if found := [token for n in names if (token := tokenizer.token_to_id(n)) is not None]:
        return int(found[0])
    own = read_json(folder / "config.json").get("pad_token_id")
    if isinstance(own, int):
        return own
    hint = 'name one in tokenizer_config.json: {"pad_token": "..."}'
    raise InputError(f"{folder / TOKENIZER} has no padding token", hint)


def checked_length(asked: int | None, tokenizer: Tokenizer, folder: Path) -> int:
    """The length to cut to, within what the model has positions for."""
    config = read_json(folder / "config.json")
    own = read_json(folder / "tokenizer_config.json").get("model_max_length")
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and config.get("model_type") in POSITIONS_AFTER_PADDING:
        positions -= 2
    limits = [n for n in (own, positions) if isinstance(n, int | float) and 0 < n < NO_LIMIT]
    length = int(asked or min(limits, default=DEFAULT_MAX_LENGTH))
    most = positions if isinstance(positions, int) else length
    specials = tokenizer.num_special_tokens_to_add(False)
    if not specials < length <= most:
        raise InputError(
            f"max_length {length}, of which {specials} are special tokens; the model has {most}",
            f"give {specials + 1} to {most}",
        )
    return length


def weights_hash(folder: Path, tokenizer_json: str) -> str:
    """SHA-256 over the graph, its external data, and what of the tokenizer decides the ids."""
    with needs_extra("onnx"):
        import onnx
    try:
        graph = onnx.load(str(folder / MODEL), load_external_data=False)
    except Exception as error:  # protobuf's own
        message = f"{folder / MODEL} is no ONNX graph: {first_line(error)}"
        raise InputError(message, "copy or export it again") from error
    outside = sorted({_location(tensor) for tensor in _tensors(graph)} - {""})
    for name in outside:
        inside = not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts
        if not (inside and (folder / name).is_file()):
            message = f"{folder / MODEL} keeps weights in {name!r}, not in the folder"
            raise InputError(message, "copy its data files beside it")
    tokenizer = {**json.loads(tokenizer_json), "truncation": None, "padding": None}
    digests = [sha256_of(folder / name) for name in (MODEL, *outside)]
    digests.append(hashlib.sha256(canonical_json(tokenizer)).hexdigest())
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _tensors(model: Any) -> Iterator[Any]:
    """Every constant of a graph, those in nested graphs and functions too."""
    parts = [model.graph, *model.functions]
    while parts:
        part = parts.pop()
        yield from getattr(part, "initializer", ())
        for sparse in getattr(part, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        for attribute in (a for node in part.node for a in node.attribute):
            yield from (attribute.t, *attribute.tensors)
            parts.extend([attribute.g, *attribute.graphs] if attribute.type in (5, 10) else [])


def _location(tensor: Any) -> str:
    """The file that a tensor is kept in; empty where it is in the graph."""
    return next((e.value for e in tensor.external_data if e.key == "location"), "")
