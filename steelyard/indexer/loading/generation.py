"""What a generation of shards is: its description, and what it holds as a hash."""

from __future__ import annotations

from steelyard.encoders.pack.metadata import PackMetadata
from steelyard.encoders.pack.spaces import short_hash
from steelyard.errors import PackMismatchError
from steelyard.indexer.encoding.manifest import EncodingPlan
from steelyard.plugin.engine import Generation


def content_of(plan: EncodingPlan, pack: PackMetadata) -> str:
    """What a generation of these shards holds, as a hash; known before the last shard is."""
    spaces = pack.spaces
    return short_hash(
        [
            plan.fingerprint,
            plan.fields,
            spaces.dense,
            spaces.sparse,
            pack.sparse.scale,
            plan.passages,
        ]
    )


def generation_of(name: str, plan: EncodingPlan, pack: PackMetadata, content: str) -> Generation:
    """A generation of shards."""
    return Generation(
        name=name,
        dense_space=pack.spaces.dense,
        sparse_space=pack.spaces.sparse,
        pack_id=pack.pack_id,
        content=content,
        dims=plan.dims,
        vocabulary_size=plan.vocabulary_size,
        scale=pack.sparse.scale,
        fields=plan.fields,
        passages=plan.passages,
    )


def check_spaces(plan: EncodingPlan, pack: PackMetadata) -> None:
    """Refuse shards of other spaces than the pack's."""
    spaces = pack.spaces
    if (plan.dense_space, plan.sparse_space) != (spaces.dense, spaces.sparse):
        raise PackMismatchError(
            f"the shards are in {plan.dense_space} and {plan.sparse_space}, the pack is for "
            f"{spaces.dense} and {spaces.sparse}",
            "encode the corpus with this pack",
        )
