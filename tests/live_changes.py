"""Live changes without a tower: vectors made of a document's words, passages of three words."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from steelyard.indexer.changes.encoder import ChangeEncoder, EncodedChange
from steelyard.indexer.changes.live import LiveIndex
from steelyard.plugin.engine import Engine, Generation
from steelyard.plugin.folder_records import FolderRecords
from steelyard.plugin.records import RecordStore
from steelyard.progress import SilentProgress
from steelyard.types import Document, EncodedDocuments, SparseVectors, l2_normalise

DIMS, TERMS = 8, 50
WORDS_A_PASSAGE = 3
FIELDS = {"price": "float", "brand": "keyword"}


def generation(number: int = 1, *, passages: str = "3/0", alias: str = "demo") -> Generation:
    """Number n of an alias; its dense space is the text "dense"."""
    return Generation(
        name=f"{alias}_202601010000{number:02d}_{number:08x}",
        dense_space="dense",
        sparse_space="sparse",
        pack_id="pack",
        content=f"content-{number}",
        dims=DIMS,
        vocabulary_size=TERMS,
        scale=100.0,
        fields=FIELDS,
        passages=passages,
    )


def words(count: int, start: int = 0) -> str:
    return " ".join(f"w{n}" for n in range(start, start + count))


def passages_of(document: Document, made: Generation) -> list[Document]:
    """As ``split_passages``, by words."""
    parts = document.text.split()
    whole = document.parent_id not in ("", document.id)
    if not made.passages or whole or len(parts) <= WORDS_A_PASSAGE:
        return [document]
    return [
        Document(
            f"{document.id}#{n}",
            " ".join(parts[n * WORDS_A_PASSAGE : (n + 1) * WORDS_A_PASSAGE]),
            document.title,
            document.id,
            document.metadata,
        )
        for n in range(-(-len(parts) // WORDS_A_PASSAGE))
    ]


def vectors(documents: Sequence[Document]) -> EncodedDocuments:
    """Of each document its own, by a hash of its text."""
    dense, rows = [], []
    for document in documents:
        seed = int.from_bytes(hashlib.sha256(document.content.encode()).digest()[:8])
        rng = np.random.default_rng(seed)
        dense.append(rng.normal(size=DIMS))
        ids = np.sort(rng.choice(TERMS, 3, replace=False)).astype(np.int32)
        rows.append((ids, rng.uniform(0.1, 3, 3).astype(np.float32)))
    made = l2_normalise(np.array(dense, np.float32).reshape(-1, DIMS))
    return EncodedDocuments(list(documents), made, SparseVectors.from_rows(rows, TERMS))


class HashEncoder:
    """A ``ChangeEncoder`` whose tower is a hash; a text with NAN in it has no vector."""

    def encode(self, documents: Sequence[Document], generation: Generation) -> EncodedChange:
        good = [document for document in documents if "NAN" not in document.text]
        bad = {d.id: "NaN or infinite vector" for d in documents if "NAN" in d.text}
        pieces = [piece for document in good for piece in passages_of(document, generation)]
        return EncodedChange(vectors(pieces), bad)


def hash_encoder() -> ChangeEncoder:
    return HashEncoder()


def fill(engine: Engine, made: Generation, documents: Sequence[Document]) -> None:
    """Make a generation of whole documents, as a bulk load does; it is not published."""
    engine.create(made)
    content = HashEncoder().encode(documents, made).content
    if len(content):
        engine.upsert(made, content)
    engine.seal(made)


def live(engine: Engine, store: RecordStore, *, tower: bool = True) -> LiveIndex:
    return LiveIndex(
        engine, store, hash_encoder if tower else None, SilentProgress(), lease_seconds=5
    )


def records(folder: Path) -> FolderRecords:
    return FolderRecords(folder / "records")


def stored(engine: Engine, made: Generation) -> dict[str, str]:
    """Text by id, of everything in a generation."""
    return {d.id: d.text for d in engine.open(made).export().documents}


def expected(documents: Sequence[Document], made: Generation) -> dict[str, str]:
    """What ``stored`` gives when a generation holds exactly these documents."""
    return {p.id: p.text for document in documents for p in passages_of(document, made)}
