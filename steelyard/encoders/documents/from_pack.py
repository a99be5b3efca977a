"""The document encoder that a pack was made for, opened again."""

from __future__ import annotations

from collections.abc import Callable

from steelyard.encoders.causal import tower as causal
from steelyard.encoders.causal.model import resolve_precision
from steelyard.encoders.causal.source import locate_causal_model
from steelyard.encoders.causal.tower import CausalEncoder
from steelyard.encoders.documents import bm25, sentence_transformers, table
from steelyard.encoders.documents.bm25 import Bm25Encoder
from steelyard.encoders.documents.onnx import encoder as onnx
from steelyard.encoders.documents.onnx.encoder import OnnxEncoder
from steelyard.encoders.documents.paired import PairedEncoder
from steelyard.encoders.documents.protocol import DocumentEncoder, FullModel
from steelyard.encoders.documents.sentence_transformers import (
    SentenceTransformersEncoder,
    native_precision,
)
from steelyard.encoders.pack.metadata import LM_HEAD, PackMetadata
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.encoders.query.tokenizer import PackTokenizer
from steelyard.errors import InputError, PackError

KINDS = (sentence_transformers.KIND, onnx.KIND, causal.KIND)


def open_dense_encoder(
    metadata: PackMetadata,
    *,
    model: str | None = None,
    adapter: str | None = None,
    precision: str = "auto",
    device: str | None = None,
    say: Callable[[str], None] | None = None,
) -> FullModel:
    """The full model behind a pack's dense arm.

    Args:
        metadata: of the pack.
        model, adapter: where the model and its adapter are now, if not where the pack says.
        device: see ``open_causal_model``; other towers choose for themselves.
        precision: see ``SentenceTransformersEncoder`` and ``open_causal_model``.
        say: told what a user should know while encoding.

    Raises:
        PackMismatchError: the model found is not the one the pack was made for.
    """
    spec = metadata.document_encoder
    if spec.kind == causal.KIND:
        return CausalEncoder.from_pack(
            metadata, model=model, adapter=adapter, precision=precision, device=device, say=say
        )
    if adapter is not None or device is not None:
        raise InputError(
            f"--adapter and --device are for causal models, the pack's tower is {spec.kind}",
            "leave them out",
        )
    if spec.kind == sentence_transformers.KIND:
        return SentenceTransformersEncoder.from_spec(spec, model=model, precision=precision)
    if spec.kind == onnx.KIND:
        return OnnxEncoder.from_spec(spec, model=model, precision=precision)
    raise PackError(
        f"the pack's document encoder is of kind {spec.kind!r}, this version opens "
        f"{', '.join(KINDS)}",
        "upgrade steelyard",
    )


def document_precision(
    metadata: PackMetadata,
    *,
    model: str | None = None,
    adapter: str | None = None,
    precision: str = "auto",
    device: str | None = None,
) -> str:
    """What ``precision`` means for a pack's document encoder here, without opening it."""
    spec = metadata.document_encoder
    if spec.kind == causal.KIND:
        files = locate_causal_model(**causal.where_now(spec, model, adapter))
        return resolve_precision(files, precision, device)
    if spec.kind == table.KIND:
        return table.TableEncoder.precision
    return OnnxEncoder.precision if spec.kind == onnx.KIND else native_precision(precision)


def open_sparse_encoder(pack: QueryEncoder) -> Bm25Encoder:
    """The counter behind a pack's sparse arm."""
    sparse = pack.metadata.sparse
    if sparse.kind != bm25.KIND or sparse.k1 is None or sparse.b is None or sparse.avgdl is None:
        raise PackError(
            f"the pack's sparse half is {sparse.kind!r} with k1 {sparse.k1}, b {sparse.b}, avgdl "
            f"{sparse.avgdl}; this version opens a complete {bm25.KIND!r}",
            "upgrade steelyard or rebuild the pack",
        )
    tokenizer = PackTokenizer(
        pack.tokenizer,
        pack.vocabulary_size,
        text_prefix=sparse.text_prefix,
        ignored_ids=sparse.ignored_ids,
        words=pack.words,
    )
    return Bm25Encoder(
        tokenizer,
        pack.vocabulary_size,
        avgdl=sparse.avgdl,
        k1=sparse.k1,
        b=sparse.b,
        max_terms=sparse.max_terms,
    )


def open_document_encoder(
    pack: QueryEncoder,
    *,
    model: str | None = None,
    adapter: str | None = None,
    precision: str = "auto",
    device: str | None = None,
    say: Callable[[str], None] | None = None,
) -> DocumentEncoder:
    """Both arms' document side; arguments as of ``open_dense_encoder``."""
    if pack.metadata.document_encoder.kind == table.KIND:
        return PairedEncoder(table.TableEncoder(pack), open_sparse_encoder(pack))
    dense = open_dense_encoder(
        pack.metadata, model=model, adapter=adapter, precision=precision, device=device, say=say
    )
    if pack.metadata.sparse.kind == LM_HEAD:
        return dense
    return PairedEncoder(dense, open_sparse_encoder(pack))
