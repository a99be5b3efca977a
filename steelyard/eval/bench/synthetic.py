"""Documents and a pack of made-up words: any number of them, the same every time, without a model.

For benchmarks and soak tests of everything around the tower.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel

from steelyard.encoders.documents.table import KIND
from steelyard.encoders.pack.files import write_pack
from steelyard.encoders.pack.metadata import (
    BM25,
    DenseArm,
    DocumentEncoderSpec,
    PackMetadata,
    SparseArm,
)
from steelyard.encoders.pack.query_tokenizer import query_tokenizer
from steelyard.encoders.pack.spaces import vocabulary_hash
from steelyard.encoders.query.tables import table_tensors

WORDS = 5000
LENGTH = 20
"""Words of a document: a short passage."""

_BLOCK = 10_000
_UNKNOWN = "[UNK]"


def synthetic_pack(folder: Path, *, dims: int = 384, seed: int = 0) -> Path:
    """Write a pack whose tower is its own table of random vectors.

    Args:
        folder: of the pack.
        dims: length of its vectors.
        seed: of the vectors.
    """
    words = {_UNKNOWN: 0, **{word(i): i + 1 for i in range(WORDS)}}
    raw = Tokenizer(WordLevel(words, unk_token=_UNKNOWN))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.add_special_tokens([_UNKNOWN])
    tokenizer = query_tokenizer(raw.to_str())
    random = np.random.default_rng(seed)
    rows = random.normal(size=(tokenizer.rows, dims)).astype(np.float32)
    metadata = PackMetadata(
        name="synthetic",
        vocabulary=vocabulary_hash(tokenizer.text),
        document_encoder=DocumentEncoderSpec(
            KIND, "synthetic", None, f"{seed:08d}{dims:08d}" * 4, "mean", {"document": ""}, 512
        ),
        dense=DenseArm(
            dims=dims,
            rows=tokenizer.rows,
            dtype="float32",
            tables={"default": ""},
            default_table="default",
            text_prefix="",
            query_max_tokens=512,
            ignored_ids=tokenizer.special_ids,
        ),
        sparse=SparseArm(
            kind=BM25,
            scale=100.0,
            text_prefix="",
            query_max_tokens=512,
            max_terms=None,
            ignored_ids=tokenizer.special_ids,
            k1=1.2,
            b=0.75,
            avgdl=float(LENGTH),
            documents=_BLOCK,
        ),
    )
    weights = np.log1p(np.arange(tokenizer.rows, dtype=np.float32))
    write_pack(
        folder,
        metadata,
        tokenizer.text,
        table_tensors(rows, "float32", "default"),
        weights.astype(np.float32),
    )
    return folder


def synthetic_corpus(path: Path, documents: int, *, seed: int = 0) -> Path:
    """Write documents as JSON Lines; word frequencies fall as those of language do."""
    with path.open("w", encoding="utf-8") as stream:
        for first in range(0, documents, _BLOCK):
            texts = _texts(first // _BLOCK, min(_BLOCK, documents - first), seed)
            stream.writelines(
                f'{{"_id": "d{first + i}", "title": "", "text": "{text}"}}\n'
                for i, text in enumerate(texts)
            )
    return path


def synthetic_queries(count: int, *, seed: int = 1) -> list[str]:
    """Short texts of the same words."""
    return [" ".join(text.split()[:5]) for text in _texts(0, count, seed)]


def word(number: int) -> str:
    """A made-up word; each number has another."""
    letters = []
    for _ in range(3):
        number, rest = divmod(number, 75)
        letters.append("bcdfghjklmnprst"[rest // 5] + "aeiou"[rest % 5])
    return "".join(letters)


def _texts(block: int, count: int, seed: int) -> Iterator[str]:
    random = np.random.default_rng([seed, block])
    # Log-uniform ranks: a word of rank r has a share of about 1/r.
    ranks = np.exp(random.uniform(0, np.log(WORDS), size=(count, LENGTH))).astype(np.int64) - 1
    words = np.array([word(i) for i in range(WORDS)])
    return (" ".join(row) for row in words[np.clip(ranks, 0, WORDS - 1)])
