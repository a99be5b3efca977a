"""Ours: the query encoder, dense, sparse, both, and with no word known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steelyard.eval.bench.peers.peer import BOTH, DENSE, SPARSE, Opened, Setting, nothing

if TYPE_CHECKING:
    from steelyard.encoders.query.encoder import QueryEncoder

_FILES = {
    DENSE: ("tokenizer.json", "dense.safetensors"),
    SPARSE: ("tokenizer.json", "sparse.safetensors"),
    BOTH: ("tokenizer.json", "dense.safetensors", "sparse.safetensors"),
}


@dataclass(frozen=True)
class LookUp:
    """The pack as it is.

    Attributes:
        gives: one arm or both.
        cold: no word is known when the clock starts.
    """

    name: str
    title: str
    gives: str
    cold: bool = False
    install: str = "pip install steelyard"
    most: int | None = None

    def prepare(self, setting: Setting, folder: Path) -> int:
        """The pack is there already."""
        del folder
        return sum((Path(setting.pack) / name).stat().st_size for name in _FILES[self.gives])

    def open(self, setting: Setting, folder: Path) -> Opened:
        """As the README opens it."""
        del folder
        from steelyard.encoders.query.encoder import QueryEncoder

        encoder = QueryEncoder.load(setting.pack)
        many: Callable[[Sequence[str]], object] = encoder.encode_query
        if self.gives == DENSE:
            many = encoder.encode_dense
        elif self.gives == SPARSE:
            many = encoder.encode_sparse
        return Opened(
            encoder.encode_query,  # the way to ask for a single query gives both arms
            many,
            dense=encoder.encode_dense,
            keep=lambda: _keep(encoder),
            forget=(lambda: _forget(encoder)) if self.cold else nothing,
            facts=lambda texts: _facts(encoder, texts),
        )


def _keep(encoder: QueryEncoder) -> Callable[[], None]:
    words = encoder.words
    if words is None:
        return nothing
    known = words.known()
    return lambda: words.remember(known)


def _forget(encoder: QueryEncoder) -> None:
    if encoder.words is not None:
        encoder.words.forget()


def _facts(encoder: QueryEncoder, texts: Sequence[str]) -> dict[str, float]:
    return {} if encoder.words is None else {"known words": encoder.words.hit_rate(texts)}
