"""Portions of documents in, their vectors out, in the same order: here, or on other machines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from steelyard.encoders.documents.protocol import DocumentEncoder
from steelyard.indexer.encoding.group import EncodedGroup, encode_group
from steelyard.indexer.encoding.manifest import EncodingPlan
from steelyard.types import Document


class Portion(Protocol):
    """What becomes one shard, or nothing: a portion may have no documents."""

    @property
    def documents(self) -> Sequence[Document]:
        """To encode, in order."""


PortionT = TypeVar("PortionT", bound=Portion)
Advance = Callable[[int], None]


class PortionEncoder(Protocol):
    """Where portions are encoded."""

    def encode(
        self, portions: Iterable[PortionT], advance: Advance
    ) -> Iterator[tuple[PortionT, EncodedGroup | None]]:
        """Each portion with what became of its documents, in order.

        Args:
            portions: read only as fast as they are encoded; one without documents gets None.
            advance: told the documents done, also with 0 now and then; what it raises stops the
                encoding.
        """


@dataclass(slots=True)
class LocalEncoder:
    """Portions encoded in this process, one after the other.

    Args:
        open_encoder: called once, when there is something to encode.
        plan: sizes of vectors and batches.
    """

    open_encoder: Callable[[], DocumentEncoder]
    plan: EncodingPlan

    def encode(
        self, portions: Iterable[PortionT], advance: Advance
    ) -> Iterator[tuple[PortionT, EncodedGroup | None]]:
        """See ``PortionEncoder``."""
        encoder: DocumentEncoder | None = None
        for portion in portions:
            if not portion.documents:
                yield portion, None
                continue
            encoder = encoder or self.open_encoder()
            yield portion, encode_planned(portion.documents, encoder, self.plan, advance)


def encode_planned(
    documents: Sequence[Document],
    encoder: DocumentEncoder,
    plan: EncodingPlan,
    advance: Advance = lambda _: None,
) -> EncodedGroup:
    """Encode one portion as a plan says."""
    return encode_group(
        documents,
        encoder,
        dims=plan.dims,
        vocabulary_size=plan.vocabulary_size,
        batch_tokens=plan.batch_tokens,
        advance=advance,
    )
