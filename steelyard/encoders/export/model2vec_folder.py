"""Format ``model2vec``: a folder for ``model2vec.StaticModel.from_pretrained``.

model2vec takes the mean of the rows and normalises it, which is the normalised sum. Its
``weights`` are a factor a row: with them int8 rows keep their scales.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from steelyard.encoders.export.baked_tokenizer import baked_tokenizer, prefix_notes
from steelyard.encoders.export.source import ExportSource
from steelyard.encoders.export.tensor_file import write_table
from steelyard.errors import InputError
from steelyard.types import DenseVectors


def write(source: ExportSource, folder: Path) -> list[str]:
    """Write ``config.json``, ``model.safetensors`` and ``tokenizer.json``.

    Returns:
        What a user should know.

    Raises:
        InputError: the pack gives the unknown token a meaning; model2vec always drops it.
    """
    dense, tokenizer = source.metadata.dense, source.encoder.tokenizer
    _refuse_unknown_token(source)
    write_table(
        folder / "model.safetensors",
        source,
        "embeddings",
        factors="weights" if source.dtype == "int8" else None,
        # Without a mapping, model2vec asks for as many rows as there are tokens.
        mapping="mapping" if tokenizer.get_vocab_size() != source.rows else None,
    )
    text = baked_tokenizer(
        source.encoder.tokenizer_json,
        text_prefix=dense.text_prefix,
        max_tokens=dense.query_max_tokens,
    )
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    config = {
        "model_type": "model2vec",
        "architectures": ["StaticModel"],
        "normalize": True,
        "max_length": dense.query_max_tokens,
        "hidden_dim": source.dims,
        "embedding_dtype": source.dtype,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    lengths = [len(token) for token in tokenizer.get_vocab()]
    notes = [
        *prefix_notes(dense.text_prefix),
        f"model2vec cuts a text at {dense.query_max_tokens * int(np.median(lengths)):,} "
        "characters before it tokenises",
    ]
    if source.dtype == "float16":
        notes.append("model2vec answers in float16: about 3 decimal digits")
    return notes


def encode(folder: Path, texts: Sequence[str]) -> DenseVectors:
    """Encode with model2vec, as a user would."""
    from model2vec import StaticModel

    model = StaticModel.from_pretrained(folder)
    return np.asarray(model.encode(list(texts)), dtype=np.float32)


def _refuse_unknown_token(source: ExportSource) -> None:
    model = json.loads(source.encoder.tokenizer_json)["model"]
    unknown = model.get("unk_id")
    if isinstance(model.get("unk_token"), str):
        unknown = source.encoder.tokenizer.token_to_id(model["unk_token"])
    if unknown is None or unknown in source.metadata.dense.ignored_ids:
        return
    if source.encoder.tables[source.instruction].gather(np.array([unknown], np.int32)).any():
        token = source.encoder.tokenizer.id_to_token(unknown)
        raise InputError(
            f"the pack's table has a row for the unknown token {token!r}, which model2vec drops",
            "export as onnx or sentence-transformers",
        )
