"""How large shards and indexes get, and how long they take to make: formulas with measured rates.

The rates are of SciFact (5,183 abstracts of 1,500 bytes, 384 dimensions, 158 terms a document) and
docs/scaling.md says how each was measured. Sizes are of one copy: replicas multiply them.
"""

from __future__ import annotations

from dataclasses import dataclass

from steelyard.errors import InputError

SHARD_FLOAT, SHARD_TERM, SHARD_TEXT, SHARD_ROW = 3.4, 2.8, 0.4, 8.0
"""Bytes in a Parquet shard: of a vector's element, a term, a byte of text, and the two ids."""

LUCENE_FLOAT, LUCENE_TERM, LUCENE_TEXT, LUCENE_ROW = 4.0, 11.0, 1.03, 23.0
"""Bytes on OpenSearch's disk: of a vector's element, a posting with its stored copy, a byte of
text (stored, and indexed for the engine's own BM25), and a document."""

LUCENE_LINKS = 16
"""``m`` of the graphs that we make in OpenSearch: at most twice as many links a vector."""

WIRE_FLOAT, WIRE_TERM, WIRE_TEXT, WIRE_ROW = 12.3, 12.0, 1.0, 110.0
"""Bytes in OpenSearch's bulk requests, which are JSON."""

MILVUS_LINKS = 32
"""``M`` of the graphs that we make in Milvus: twice as many links on the lowest level."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A corpus, as far as sizes depend on it.

    Attributes:
        documents: or passages, where documents are split.
        tokens: that the document encoder reads, a document.
        dims: of a dense vector.
        terms: of a sparse vector, mean.
        text_bytes: of title and text, mean.
        shard_documents: documents in a shard.
    """

    documents: int
    tokens: float
    dims: int
    terms: float
    text_bytes: float
    shard_documents: int = 2048

    def __post_init__(self) -> None:
        least = min(self.documents, self.tokens, self.dims, self.shard_documents)
        if least <= 0 or min(self.terms, self.text_bytes) < 0:
            raise InputError("a plan of nothing", "give counts above 0")


@dataclass(frozen=True, slots=True)
class Rates:
    """What was measured where the job will run.

    Attributes:
        tokens_per_second: of one encoder process; ``steelyard bench documents`` measures it.
        encoders: processes side by side.
        load_documents_per_second: of the engines; ``steelyard bench bulk`` measures it.
    """

    tokens_per_second: float
    encoders: int
    load_documents_per_second: float

    def __post_init__(self) -> None:
        if min(self.tokens_per_second, self.encoders, self.load_documents_per_second) <= 0:
            raise InputError("a rate of nothing", "give rates above 0")


@dataclass(frozen=True, slots=True)
class Shards:
    """Files and bytes of a corpus, encoded."""

    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class IndexSize:
    """Bytes of one copy of one arm or engine.

    Attributes:
        vectors: as they are.
        graph: links of the dense index, at most.
        sparse: postings, and their stored copy.
        texts: stored and indexed texts, ids.
    """

    vectors: int
    graph: int
    sparse: int
    texts: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.vectors + self.graph + self.sparse + self.texts


@dataclass(frozen=True, slots=True)
class Duration:
    """Seconds; encoding and loading overlap, so a job takes about the longer of the two.

    Attributes:
        encode: with all encoders.
        encoder_hours: of one encoder, what a bill is made of.
        load: into the engines.
    """

    encode: float
    encoder_hours: float
    load: float

    @property
    def job(self) -> float:
        """Of the whole job, at least."""
        return max(self.encode, self.load)


def shards_of(work: Workload) -> Shards:
    """The encoded corpus on disk."""
    row = (
        work.dims * SHARD_FLOAT
        + work.terms * SHARD_TERM
        + work.text_bytes * SHARD_TEXT
        + SHARD_ROW
    )
    return Shards(-(-work.documents // work.shard_documents), round(work.documents * row))


def opensearch_index(work: Workload, *, dense: bool = True, sparse: bool = True) -> IndexSize:
    """One copy of an index in OpenSearch; in topology A without its dense arm."""
    return IndexSize(
        vectors=round(work.documents * work.dims * LUCENE_FLOAT) if dense else 0,
        graph=work.documents * 2 * LUCENE_LINKS * 4 if dense else 0,
        sparse=round(work.documents * work.terms * LUCENE_TERM) if sparse else 0,
        texts=round(work.documents * (work.text_bytes * LUCENE_TEXT + LUCENE_ROW)),
    )


def milvus_index(work: Workload) -> IndexSize:
    """The dense arm in Milvus' memory: vectors, links and labels of the HNSW graph."""
    return IndexSize(
        vectors=work.documents * work.dims * 4,
        graph=work.documents * ((2 * MILVUS_LINKS + 1) * 4 + 8),
        sparse=0,
        texts=0,
    )


def wire_bytes(work: Workload, *, dense: bool = True) -> int:
    """Bytes of the bulk requests to OpenSearch, uncompressed."""
    row = work.terms * WIRE_TERM + work.text_bytes * WIRE_TEXT + WIRE_ROW
    return round(work.documents * (row + (work.dims * WIRE_FLOAT if dense else 0)))


def duration_of(work: Workload, rates: Rates) -> Duration:
    """How long to encode and to load."""
    alone = work.documents * work.tokens / rates.tokens_per_second
    return Duration(
        encode=alone / rates.encoders,
        encoder_hours=alone / 3600,
        load=work.documents / rates.load_documents_per_second,
    )
