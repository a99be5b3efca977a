"""What tests of in-cluster search share: packs with documents of their space, and generations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from steelyard.encoders.causal.build import BuildJob, build_pack
from steelyard.encoders.causal.tower import CausalEncoder
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.indexer.encoding.shards import read_shard
from steelyard.plugin.engine import Engine, Generation
from steelyard.plugin.urls import open_engine
from steelyard.progress import SilentProgress
from steelyard.types import Document, EncodedDocuments, SparseVectors
from tests.conftest import SCIFACT, Small, scifact_lines

CAUSAL = Path(__file__).parent / "data" / "lightretriever_qwen2" / "model"
TASK = "Given a web search query, retrieve relevant passages that answer the query"


@dataclass(frozen=True)
class Packed:
    """A pack, and documents of its spaces."""

    path: Path
    encoder: QueryEncoder
    documents: EncodedDocuments

    def generation(self, alias: str, number: int, arms: Sequence[str]) -> Generation:
        """Described as a load would."""
        metadata = self.encoder.metadata
        return Generation(
            name=f"{alias}_2026010100{number:04d}_{number:08x}",
            dense_space=metadata.spaces.dense,
            sparse_space=metadata.spaces.sparse,
            pack_id=metadata.pack_id,
            content=f"content-{number}",
            dims=self.encoder.dims,
            vocabulary_size=self.encoder.vocabulary_size,
            scale=metadata.sparse.scale,
            arms=tuple(arms),
        )

    def engine(self, url: str) -> Engine:
        return open_engine(url, vocabulary=self.encoder.tokenizer)

    def load(
        self,
        url: str,
        number: int,
        *,
        arms: Sequence[str] = ("dense", "sparse"),
        publish: bool = True,
    ) -> Generation:
        """A generation of the documents, published unless told otherwise."""
        engine = self.engine(url)
        try:
            generation = self.generation(engine.alias, number, arms)
            engine.create(generation)
            engine.upsert(generation, self.documents)
            engine.seal(generation)
            if publish:
                engine.publish(generation)
            return generation
        finally:
            engine.close()


def small_pack(small: Small) -> Packed:
    """The small real pack: MiniLM and BM25, WordPiece."""
    shards = [read_shard(small.made.shards / s.name) for s in small.made.manifest.shards]
    documents = EncodedDocuments(
        [document for shard in shards for document in shard.documents],
        np.concatenate([shard.dense for shard in shards]),
        SparseVectors.from_rows(
            [row for shard in shards for row in shard.sparse.rows()],
            small.encoder.vocabulary_size,
        ),
    )
    return Packed(small.pack, small.encoder, documents)


def causal_pack(folder: Path, count: int = 60) -> Packed:
    """A pack of a tiny causal model: other dimensions, byte-level BPE, an LM head."""
    job = BuildJob(str(CAUSAL), {"default": TASK}, max_length=48)
    build_pack(job, folder / "pack", SilentProgress(), work=folder / "work")
    documents = [Document(d["_id"], d["text"], d["title"]) for d in scifact_lines(count)]
    tower = CausalEncoder(str(CAUSAL), max_length=48)
    vectors = tower.encode_document([document.content for document in documents])
    assert vectors.dense is not None
    assert vectors.sparse is not None
    encoder = QueryEncoder.load(folder / "pack")
    sparse = SparseVectors.from_rows(list(vectors.sparse.rows()), encoder.vocabulary_size)
    return Packed(folder / "pack", encoder, EncodedDocuments(documents, vectors.dense, sparse))


def questions() -> list[str]:
    """All queries of the collection."""
    lines = (SCIFACT / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]
