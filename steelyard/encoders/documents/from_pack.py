"""The document encoder that a pack was made for, opened again."""

from __future__ import annotations

from steelyard.encoders.documents import bm25, sentence_transformers
from steelyard.encoders.documents.bm25 import Bm25Encoder
from steelyard.encoders.documents.paired import PairedEncoder
from steelyard.encoders.documents.protocol import DocumentEncoder, Teacher
from steelyard.encoders.documents.sentence_transformers import SentenceTransformersEncoder
from steelyard.encoders.pack.metadata import PackMetadata
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.encoders.query.tokenizer import PackTokenizer
from steelyard.errors import PackError


def open_dense_encoder(
    metadata: PackMetadata, *, model: str | None = None, precision: str = "auto"
) -> Teacher:
    """The full model behind a pack's dense arm.

    Args:
        metadata: of the pack.
        model: where the model is now, if not where the pack says.
        precision: see ``SentenceTransformersEncoder``.

    Raises:
        PackMismatchError: the model found is not the one the pack was made for.
    """
    spec = metadata.document_encoder
    if spec.kind != sentence_transformers.KIND:
        raise PackError(
            f"the pack's document encoder is of kind {spec.kind!r}, this version opens "
            f"{sentence_transformers.KIND!r}",
            "upgrade steelyard",
        )
    return SentenceTransformersEncoder.from_spec(spec, model=model, precision=precision)


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
    pack: QueryEncoder, *, model: str | None = None, precision: str = "auto"
) -> DocumentEncoder:
    """Both arms' document side, as ``open_dense_encoder`` and ``open_sparse_encoder`` open it."""
    return PairedEncoder(
        open_dense_encoder(pack.metadata, model=model, precision=precision),
        open_sparse_encoder(pack),
    )
