"""What tests of the Lucene engine share: fifty terms, forty documents, and a way in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from steelyard.plugin.engine import Engine, Generation
from steelyard.plugin.urls import open_engine
from steelyard.types import Document, EncodedDocuments, SparseVectors, l2_normalise

FIELDS = {"price": "float", "brand": "keyword", "stock": "int", "sale": "bool"}
BRANDS = ["a", 'b"quoted"', "c\\slash"]
NAME = "demo_20260101000000_00000001"


def generation(name: str = NAME) -> Generation:
    return Generation(name, "dense-x", "sparse-x", "pack-x", "content", 8, 50, 100.0, FIELDS)


def documents(count: int, seed: int = 3) -> EncodedDocuments:
    """Every fourth document has no term, every fifth no metadata."""
    rng = np.random.default_rng(seed)
    made = [
        Document(
            f"d{i}",
            f"text {i}",
            f"title {i}",
            f"p{i // 2}",
            {}
            if i % 5 == 4
            else {"price": i / 2, "brand": BRANDS[i % 3], "stock": i, "sale": i % 2 == 0},
        )
        for i in range(count)
    ]
    rows = [
        (
            np.sort(rng.choice(50, i % 4, replace=False)).astype(np.int32),
            rng.uniform(0.01, 6, i % 4).astype(np.float32),
        )
        for i in range(count)
    ]
    dense = l2_normalise(rng.normal(size=(count, 8)).astype(np.float32))
    return EncodedDocuments(made, dense, SparseVectors.from_rows(rows, 50))


def with_ids(content: EncodedDocuments, ids: list[str]) -> EncodedDocuments:
    named = [replace(d, id=i) for d, i in zip(content.documents, ids, strict=True)]
    return EncodedDocuments(named, content.dense, content.sparse)


def open_folder(path: Path, name: str = "demo") -> Engine:
    return open_engine(f"lucene://{path}?name={name}")


def fill(
    engine: Engine, content: EncodedDocuments | None = None, made: Generation | None = None
) -> None:
    made = made or generation()
    engine.create(made)
    engine.upsert(made, documents(40) if content is None else content)
    engine.seal(made)
    engine.publish(made)
