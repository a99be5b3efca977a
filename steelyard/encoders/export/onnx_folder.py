"""Format ``onnx``: the graph and the tokenizer that feeds it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from steelyard.encoders.export.baked_tokenizer import baked_tokenizer, prefix_notes
from steelyard.encoders.export.onnx_graph import session, write_graph
from steelyard.encoders.export.source import ExportSource
from steelyard.types import DenseVectors

GRAPH, TOKENIZER = "dense.onnx", "tokenizer.json"


def write(source: ExportSource, folder: Path) -> list[str]:
    """Write ``dense.onnx`` and ``tokenizer.json``; returns what a user should know."""
    external = write_graph(source, folder / GRAPH)
    dense = source.metadata.dense
    text = baked_tokenizer(
        source.encoder.tokenizer_json,
        text_prefix=dense.text_prefix,
        max_tokens=dense.query_max_tokens,
    )
    (folder / TOKENIZER).write_text(text, encoding="utf-8")
    notes = prefix_notes(dense.text_prefix)
    if not external:
        return notes
    return [
        *notes,
        f"the table of {source.table_bytes:,} bytes is over protobuf's limit of "
        f"{source.protobuf_limit:,}: it is external data, {GRAPH}.data, which belongs beside "
        f"{GRAPH}",
    ]


def encode(folder: Path, texts: Sequence[str]) -> DenseVectors:
    """Encode with onnxruntime, as a user would."""
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    return session(folder / GRAPH)(rows)
