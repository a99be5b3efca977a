"""``pack.json``: everything about a query pack that is not a number in a table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from steelyard.encoders.pack.json_fields import read_dataclass
from steelyard.encoders.pack.spaces import (
    DenseSpace,
    SparseSpace,
    canonical_json,
    short_hash,
    without_later_fields,
)
from steelyard.errors import PackError

FORMAT = 1
TABLE_DTYPES = ("float32", "float16", "int8")
BM25, LM_HEAD = "bm25", "lm-head"
"""Kinds of the sparse arm: weights by counting tokens, weights by a causal model's head."""

DEFAULT_TABLE = "default"
QUERY_MAX_TOKENS = 512
IMPACT_SCALE = 100.0
"""What makers of packs choose where nobody says; the scale is LightRetriever's."""


@dataclass(frozen=True, slots=True)
class DocumentEncoderSpec:
    """The heavy tower that made the documents' vectors: enough to open it again.

    ``model`` is a name, a folder or an installed package; ``prompts`` are keyed ``document``
    and ``query``. ``adapter``, ``gguf_file`` and ``lowercase`` are a causal model's.
    """

    kind: str
    model: str
    revision: str | None
    weights: str
    pooling: str
    prompts: dict[str, str]
    max_length: int
    adapter: str | None = None
    gguf_file: str | None = None
    lowercase: bool = True

    def dense_space(self, dims: int) -> DenseSpace:
        """What this tower's vectors of ``dims`` components depend on."""
        return DenseSpace(
            weights=self.weights,
            pooling=self.pooling,
            document_prompt=self.prompts.get("document", ""),
            max_length=self.max_length,
            dims=dims,
        )


@dataclass(frozen=True, slots=True)
class DenseArm:
    """The dense half: one table an instruction, all of one shape.

    Attributes:
        dims: columns of every table.
        rows: rows of every table, the tokenizer's number of tokens.
        dtype: ``float32``, ``float16`` or ``int8`` (with a float32 scale a row).
        tables: instruction name -> instruction text; one table each in dense.safetensors.
        default_table: the instruction used when none is named.
        text_prefix: put before a query before it is tokenised.
        query_max_tokens: longer queries are cut and flagged.
        ignored_ids: tokens that take no part, neither in the sum nor in the count.
    """

    dims: int
    rows: int
    dtype: str
    tables: dict[str, str]
    default_table: str
    text_prefix: str
    query_max_tokens: int
    ignored_ids: list[int]


@dataclass(frozen=True, slots=True)
class SparseArm:
    """The sparse half: a weight a token, and what the documents' weights were made with.

    Attributes:
        kind: ``bm25`` (query weight = idf) or ``lm-head`` (query weight = 1: counts).
        scale: factor between a weight and the integer impact that engines store.
        text_prefix: put before a text before it is tokenised.
        query_max_tokens: longer queries are cut and flagged.
        max_terms: heaviest terms kept a document; None keeps all.
        ignored_ids: tokens that are no terms.
        k1, b, avgdl: BM25's settings and the mean document length in tokens.
        documents: how many documents the idf was counted over.
    """

    kind: str
    scale: float
    text_prefix: str
    query_max_tokens: int
    max_terms: int | None
    ignored_ids: list[int]
    k1: float | None = None
    b: float | None = None
    avgdl: float | None = None
    documents: int | None = None

    def describe(self) -> str:
        """In a few words, for people."""
        kept = "all terms" if self.max_terms is None else f"{self.max_terms} terms a document"
        counted = "" if self.k1 is None else f", k1 {self.k1}, b {self.b}"
        over = "" if self.documents is None else f", idf of {self.documents:,} documents"
        return f"{self.kind}{counted}, {kept}{over}"


@dataclass(frozen=True, slots=True)
class FusionDefaults:
    """How the searcher joins the arms unless it is told otherwise."""

    method: str = "min-max"
    dense_weight: float = 0.7
    sparse_weight: float = 0.3
    rrf_k: int = 60
    candidates: int = 1000


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Size in bytes and SHA-256 of one file of the pack."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Spaces:
    """Space id of each arm."""

    dense: str
    sparse: str


@dataclass(frozen=True, slots=True)
class PackMetadata:
    """The contents of ``pack.json``, format 1.

    ``pack_id`` is a hash of all other fields, the files' checksums among them: provenance, and
    the proof that nobody edited the file. Compatibility is decided by ``spaces`` alone.
    """

    name: str
    vocabulary: str
    document_encoder: DocumentEncoderSpec
    dense: DenseArm
    sparse: SparseArm
    fusion: FusionDefaults = field(default_factory=FusionDefaults)
    provenance: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    format: int = FORMAT
    files: dict[str, FileEntry] = field(default_factory=dict)
    spaces: Spaces = field(default_factory=lambda: Spaces("", ""))
    pack_id: str = ""

    @property
    def dense_space(self) -> DenseSpace:
        """What the dense document vectors depend on."""
        return self.document_encoder.dense_space(self.dense.dims)

    @property
    def sparse_space(self) -> SparseSpace:
        """What the sparse document weights depend on."""
        sparse = self.sparse
        return SparseSpace(
            vocabulary=self.vocabulary,
            kind=sparse.kind,
            scale=sparse.scale,
            text_prefix=sparse.text_prefix,
            max_terms=sparse.max_terms,
            k1=sparse.k1,
            b=sparse.b,
            avgdl=sparse.avgdl,
            encoder=self._sparse_encoder(),
        )

    def _sparse_encoder(self) -> str | None:
        """What a model's sparse weights depend on; counted ones depend on no model."""
        if self.sparse.kind == BM25:
            return None
        encoder = self.document_encoder
        return f"{encoder.weights}/{encoder.prompts.get('document', '')}/{encoder.max_length}"

    def sealed(self, files: dict[str, FileEntry]) -> PackMetadata:
        """The same with file checksums, space ids and the pack id filled in."""
        spaces = Spaces(self.dense_space.id, self.sparse_space.id)
        unsealed = replace(self, files=files, spaces=spaces, pack_id="")
        return replace(unsealed, pack_id=unsealed.content_hash())

    def content_hash(self) -> str:
        """Hash of every field but ``pack_id``."""
        encoder = without_later_fields(asdict(self.document_encoder))
        return "pack-" + short_hash({**asdict(self), "document_encoder": encoder, "pack_id": ""})

    def to_json(self) -> str:
        """Readable JSON text."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: bytes, where: str) -> PackMetadata:
        """Parse and check; everything that is wrong is a PackError that says what."""
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
            canonical_json(value)
        except (ValueError, RecursionError) as error:
            raise PackError(f"{where} is not JSON: {error}", "rebuild the pack") from error
        found = value.get("format") if isinstance(value, dict) else None
        if found != FORMAT:
            raise PackError(
                f"{where}: pack format {found!r}, this version reads format {FORMAT}",
                "upgrade steelyard or rebuild the pack",
            )
        metadata = read_dataclass(cls, value, where)
        metadata.check(where)
        return metadata

    def check(self, where: str) -> None:
        """Checks across fields: seal, spaces, dtype, default table."""
        if self.pack_id != self.content_hash():
            raise PackError(
                f"{where}: the pack id is {self.pack_id}, its contents hash to "
                f"{self.content_hash()}",
                "pack.json was changed after it was written: restore or rebuild the pack",
            )
        spaces = Spaces(self.dense_space.id, self.sparse_space.id)
        if self.spaces != spaces:
            raise PackError(
                f"{where}: spaces are {self.spaces}, its fields give {spaces}", "rebuild the pack"
            )
        if self.dense.dtype not in TABLE_DTYPES:
            raise PackError(
                f"{where}: table dtype {self.dense.dtype!r}, known are {', '.join(TABLE_DTYPES)}",
                "rebuild the pack",
            )
        if self.dense.default_table not in self.dense.tables:
            raise PackError(
                f"{where}: default table {self.dense.default_table!r} is not one of "
                f"{sorted(self.dense.tables)}",
                "rebuild the pack",
            )


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number here")
