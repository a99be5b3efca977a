"""Format ``sentence-transformers``: a Router whose query route is the look-up.

StaticEmbedding takes the mean of the rows, Normalize scales it to unit length: the normalised
sum. There is no document route, so ``encode_document`` is refused instead of answered wrongly.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from steelyard.encoders.export.baked_tokenizer import baked_tokenizer
from steelyard.encoders.export.source import ExportSource
from steelyard.encoders.export.tensor_file import write_table
from steelyard.types import DenseVectors

_LOOK_UP, _NORMALIZE = "query_0_StaticEmbedding", "query_1_Normalize"
_TYPES = {
    _LOOK_UP: "sentence_transformers.sentence_transformer.modules.static_embedding"
    ".StaticEmbedding",
    _NORMALIZE: "sentence_transformers.base.modules.normalize.Normalize",
}


def write(source: ExportSource, folder: Path) -> list[str]:
    """Write the modules and their configurations; returns what a user should know."""
    dense = source.metadata.dense
    look_up = folder / _LOOK_UP
    look_up.mkdir()
    exact = source.dtype == "float32"
    # With a factor a row the library widens the table to float32 when it loads it; without, it
    # would add up float16 and could not use int8 at all.
    write_table(
        look_up / "model.safetensors",
        source,
        "embedding.weight" if exact else "embeddings",
        factors=None if exact else "weights",
    )
    # The prefix is a prompt and not in the tokenizer: it is put before any text then.
    text = baked_tokenizer(
        source.encoder.tokenizer_json, text_prefix="", max_tokens=dense.query_max_tokens
    )
    (look_up / "tokenizer.json").write_text(text, encoding="utf-8")
    (folder / _NORMALIZE).mkdir()
    key = "sentence_embedding"
    _json(
        folder / _NORMALIZE / "config.json",
        {"module_input_name": key, "module_output_name": key},
    )
    router = "sentence_transformers.base.modules.router.Router"
    _json(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": router}])
    _json(
        folder / "router_config.json",
        {
            "types": _TYPES,
            "structure": {"query": [_LOOK_UP, _NORMALIZE]},
            "parameters": {"default_route": "query", "allow_empty_key": True},
        },
    )
    _json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "SentenceTransformer",
            "prompts": {"query": dense.text_prefix},
            "default_prompt_name": "query" if dense.text_prefix else None,
            "similarity_fn_name": "dot",
        },
    )
    return ["queries only: encode documents with the document encoder"]


def encode(folder: Path, texts: Sequence[str]) -> DenseVectors:
    """Encode with sentence-transformers on the CPU, as a user would."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    vectors = model.encode_query(list(texts), show_progress_bar=False)
    return np.asarray(vectors, dtype=np.float32)


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
