"""Format ``opensearch``: the pair of ML Commons models that encode queries in the cluster.

``dense.zip`` is a TEXT_EMBEDDING model, the ONNX graph with the dense arm's tokenizer.
``sparse.zip`` is a SPARSE_TOKENIZE model, the sparse arm's tokenizer and a weight a token.
``models.json`` holds what registers them.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Tokenizer

from steelyard.encoders.export.baked_tokenizer import (
    baked_tokenizer,
    prefix_notes,
    term_tokenizer,
)
from steelyard.encoders.export.onnx_graph import session, write_graph
from steelyard.encoders.export.source import ExportSource
from steelyard.encoders.pack.files import sha256_of
from steelyard.types import DenseVectors

DENSE, SPARSE, MODELS = "dense.zip", "sparse.zip", "models.json"
GRAPH, TOKENIZER, IDF = "model.onnx", "tokenizer.json", "idf.json"

CHUNK_BYTES = 10_000_000
"""ML Commons takes a model in pieces of this size."""

MAX_WEIGHT = 64.0
"""Largest weight of a clause on rank_features."""

MIN_WEIGHT = 1e-6
"""Stands for 0: ML Commons gives 1 to a token that idf.json lacks, and the engine refuses 0."""

MAX_TOKENS = 512
"""ML Commons cuts at this many tokens, whatever the tokenizer says."""


def write(source: ExportSource, folder: Path) -> list[str]:
    """Write both zips and ``models.json``; returns what a user should know.

    Raises:
        InputError: the graph is over the protobuf limit; a zip cannot carry external data.
    """
    metadata = source.metadata
    weights, notes = token_weights(source)
    parts = folder / "parts"
    parts.mkdir()
    write_graph(source, parts / GRAPH, one_file=True)
    for arm, file, name in (
        (metadata.dense, DENSE, GRAPH),
        (metadata.sparse, SPARSE, IDF),
    ):
        tokenizer = baked_tokenizer(
            source.encoder.tokenizer_json,
            text_prefix=arm.text_prefix,
            max_tokens=arm.query_max_tokens,
        )
        room = MAX_TOKENS
        if file == SPARSE:
            tokenizer = term_tokenizer(tokenizer, set(arm.ignored_ids))
        elif (zero := _zero_token(source)) is not None:
            tokenizer, room = never_empty(tokenizer, *zero), MAX_TOKENS - 1
        (parts / TOKENIZER).write_text(tokenizer, encoding="utf-8")
        if file == SPARSE:
            (parts / IDF).write_text(json.dumps(weights, ensure_ascii=False), encoding="utf-8")
        _zip(folder / file, parts, sorted((name, TOKENIZER)))
        if arm.query_max_tokens > room:
            notes.append(
                f"{file}: the pack cuts queries at {arm.query_max_tokens} tokens, ML Commons at "
                f"{room}"
            )
        notes += [f"{file}: {note}" for note in prefix_notes(arm.text_prefix)]
    shutil.rmtree(parts)
    bodies = json.dumps(registrations(source, folder), indent=2, ensure_ascii=False)
    (folder / MODELS).write_text(bodies + "\n", encoding="utf-8")
    return notes


def never_empty(tokenizer_json: str, token: int, text: str) -> str:
    """A tokenizer that puts one more token after every text, beyond those it cuts at.

    ML Commons fails on a text without tokens (a zero-width space, for BERT). The token's row is
    zero, so that no vector changes.
    """
    value = json.loads(tokenizer_json)
    sequence, last = {"Sequence": {"id": "A", "type_id": 0}}, {"id": text, "type_id": 0}
    value["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [sequence, {"SpecialToken": last}],
        "pair": [sequence, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {text: {"id": text, "ids": [token], "tokens": [text]}},
    }
    if value.get("truncation"):
        value["truncation"]["max_length"] += 1
    return json.dumps(value, ensure_ascii=False)


def _zero_token(source: ExportSource) -> tuple[int, str] | None:
    """An ignored token of the dense arm, the first, and its string; None if it has none."""
    for token in sorted(source.metadata.dense.ignored_ids):
        text = source.encoder.tokenizer.id_to_token(token)
        if text:
            return token, text
    return None


def token_weights(source: ExportSource) -> tuple[dict[str, float], list[str]]:
    """The weight of each token that can be a term, by its string, and what a user should know.

    Ignored tokens are left out: no document of the pack's space has them.
    """
    encoder = source.encoder
    ignored = set(source.metadata.sparse.ignored_ids)
    values = encoder.query_weights
    terms = {}
    for token in range(source.rows):
        text = encoder.tokenizer.id_to_token(token)
        if text and token not in ignored:
            terms[text] = values[token]
    notes = []
    largest = max(terms.values(), default=0.0)
    if largest > MAX_WEIGHT:
        notes.append(
            f"the largest query weight is {largest:g}, the engine allows {MAX_WEIGHT:g}: all are "
            f"multiplied by {MAX_WEIGHT / float(largest):g}, and so are the sparse scores"
        )
        terms = {text: weight * (MAX_WEIGHT / largest) for text, weight in terms.items()}
    # str() of a float32 is the shortest number that reads back as the same float32.
    weights = {text: max(float(str(weight)), MIN_WEIGHT) for text, weight in terms.items()}
    return weights, notes


def registrations(source: ExportSource, folder: Path) -> dict[str, Any]:
    """Bodies for ``POST /_plugins/_ml/models/_register_meta``, of the zips in ``folder``."""
    metadata = source.metadata

    def body(file: str, kind: str, model_format: str, **more: Any) -> dict[str, Any]:
        size = (folder / file).stat().st_size
        return {
            "name": f"{metadata.name} {Path(file).stem} {metadata.pack_id}",
            "version": "1",
            "model_format": model_format,
            "function_name": kind,
            "model_content_hash_value": sha256_of(folder / file),
            "model_content_size_in_bytes": size,
            "total_chunks": -(-size // CHUNK_BYTES),
            **more,
        }

    # "distilbert" has ML Commons pass input_ids and attention_mask and nothing else.
    config = {
        "model_type": "distilbert",
        "embedding_dimension": source.dims,
        "framework_type": "sentence_transformers",
        "pooling_mode": "NONE",
        "all_config": "{}",
    }
    dense = body(DENSE, "TEXT_EMBEDDING", "ONNX", model_config=config)
    return {
        "chunk_bytes": CHUNK_BYTES,
        "dense": {"file": DENSE, "register_meta": dense},
        "sparse": {
            "file": SPARSE,
            "register_meta": body(SPARSE, "SPARSE_TOKENIZE", "TORCH_SCRIPT"),
        },
    }


def encode(folder: Path, texts: Sequence[str]) -> DenseVectors:
    """Encode with the graph and the tokenizer out of ``dense.zip``, as the cluster would."""
    with zipfile.ZipFile(folder / DENSE) as archive, TemporaryDirectory() as unpacked:
        archive.extractall(unpacked)
        tokenizer = Tokenizer.from_file(str(Path(unpacked) / TOKENIZER))
        vectors = session(Path(unpacked) / GRAPH)
    return vectors([encoding.ids for encoding in tokenizer.encode_batch(list(texts))])


def _zip(path: Path, folder: Path, names: list[str]) -> None:
    """The same bytes for the same files: no times, and stored, as deflate differs by version."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            entry.file_size = (folder / name).stat().st_size
            with (folder / name).open("rb") as stream, archive.open(entry, "w") as target:
                shutil.copyfileobj(stream, target, 1 << 20)
