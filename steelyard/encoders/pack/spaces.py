"""Space ids: what a set of document vectors depends on, as one short name.

A query pack may serve an index exactly when the two agree on the space of each arm. What only
the query side depends on (the table, its dtype, idf) is not part of a space, so that a
re-distilled, int8 or idf-refreshed pack serves an existing index as it is.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any


def canonical_json(value: Any) -> bytes:
    """One byte string for equal JSON values: sorted keys, no white space, UTF-8."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def short_hash(value: Any, length: int = 16) -> str:
    """The first hexadecimal digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(value)).hexdigest()[:length]


LATER_FIELDS = {"encoder": None, "adapter": None, "gguf_file": None, "lowercase": True}
"""Fields that came after the first packs, with the value that those packs imply."""


def without_later_fields(value: dict[str, Any]) -> dict[str, Any]:
    """What is hashed: later fields count only where they differ, so that old hashes stay true."""
    return {k: v for k, v in value.items() if k not in LATER_FIELDS or v != LATER_FIELDS[k]}


@dataclass(frozen=True, slots=True)
class DenseSpace:
    """What dense document vectors depend on.

    Attributes:
        weights: SHA-256 of the model's parameters, so that a copy in another folder or a
            renamed repository is the same space.
        pooling: how token states become one vector (``mean``, ``cls``, ``last`` ...).
        document_prompt: text put before every document.
        max_length: documents are cut to this many tokens, special tokens included.
        dims: length of the vectors.
    """

    weights: str
    pooling: str
    document_prompt: str
    max_length: int
    dims: int

    @property
    def id(self) -> str:
        """Short name of the space, ``dense-`` and 16 hexadecimal digits."""
        return "dense-" + short_hash(asdict(self))


@dataclass(frozen=True, slots=True)
class SparseSpace:
    """What sparse document weights depend on.

    Attributes:
        vocabulary: hash of the tokenizer (``vocabulary_hash``).
        kind: ``bm25`` or ``lm-head``.
        scale: factor between a weight and the integer impact that engines store.
        text_prefix: put before a text that is tokenised.
        max_terms: heaviest terms kept a document; None keeps all.
        k1: BM25's term frequency saturation.
        b: BM25's length normalisation, 0 to 1.
        avgdl: mean document length in tokens, frozen for a generation.
        encoder: weights, document prompt and length limit of the model that makes the weights;
            None where they are counted.
    """

    vocabulary: str
    kind: str
    scale: float
    text_prefix: str
    max_terms: int | None = None
    k1: float | None = None
    b: float | None = None
    avgdl: float | None = None
    encoder: str | None = None

    @property
    def id(self) -> str:
        """Short name of the space, ``sparse-`` and 16 hexadecimal digits."""
        return "sparse-" + short_hash(without_later_fields(asdict(self)))


def vocabulary_hash(tokenizer_json: str) -> str:
    """Hash of everything in a tokenizer.json that decides which ids a text gets."""
    tokenizer = json.loads(tokenizer_json)
    parts = {key: tokenizer.get(key) for key in ("normalizer", "pre_tokenizer", "model")}
    parts["added_tokens"] = tokenizer.get("added_tokens", [])
    return short_hash(parts, 32)
