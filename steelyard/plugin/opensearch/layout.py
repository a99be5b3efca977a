"""Where things are in an index: in one that Steelyard wrote, or in an adopted one.

Paths are of the mapping (``price``, ``brand.name``); a multi-field such as ``brand.raw`` is
searched by its own path and read from the source at the path of its parent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelyard.plugin.engine import Generation
from steelyard.types import Document

ID, PARENT, TITLE, TEXT, DENSE, SPARSE = "id", "parent_id", "title", "text", "dense", "sparse"
METADATA = "metadata"
"""The object that holds the declared fields, so that one may be called ``id`` or ``text``."""

INNER_PRODUCT, COSINE, L2 = "innerproduct", "cosinesimil", "l2"


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of an index.

    Attributes:
        id: a field that holds the document's id, read as it is indexed; None is ``_id``.
        parent, title, text: None where there is none.
        dense, sparse: of the vectors.
        fields: where a filter finds the declared metadata fields.
        sources: where their values stand in a document.
        space: ``space_type`` of the dense vectors.
        texts: those of title and text that are indexed for search.
        adopted: someone else wrote the index, so that ``id`` need not be the same as ``_id``.
    """

    id: str | None = ID
    parent: str | None = PARENT
    title: str | None = TITLE
    text: str | None = TEXT
    dense: str = DENSE
    sparse: str = SPARSE
    fields: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    space: str = INNER_PRODUCT
    texts: tuple[str, ...] = ()
    adopted: bool = False

    def document(
        self, identifier: str, source: Mapping[str, Any], kinds: Mapping[str, str]
    ) -> Document:
        """A document out of a hit's ``_source``.

        Args:
            identifier: its id.
            source: may lack anything.
            kinds: types of the declared metadata fields.
        """
        values = {name: single(value_at(source, path)) for name, path in self.sources.items()}
        metadata = {
            # JSON does not keep 5.0 and 5 apart everywhere on the way.
            name: float(value) if kinds[name] == "float" else value
            for name, value in values.items()
            if value is not None
        }
        return Document(
            identifier,
            self._words(source, self.text),
            self._words(source, self.title),
            self._words(source, self.parent) or identifier,
            metadata,
        )

    def read_paths(self, *, dense: bool, sparse: bool) -> list[str]:
        """What of a source is needed; the id is asked for beside it."""
        paths = [self.parent, self.title, self.text, *self.sources.values()]
        paths += [self.dense] * dense + [self.sparse] * sparse
        return [path for path in paths if path is not None]

    def inner_products(
        self, scores: NDArray[np.float64], norm: float = 1.0
    ) -> NDArray[np.float64]:
        """The engine's scores turned back into inner products with documents of length 1.

        Args:
            scores: of a k-NN query.
            norm: length of the query's vector.
        """
        if self.space == COSINE:
            return norm * (2 * scores - 1)
        if self.space == L2:
            return (norm * norm + 2 - 1 / np.maximum(scores, 1e-30)) / 2
        return np.where(scores >= 1, scores - 1, 1 - 1 / np.maximum(scores, 1e-30))

    @staticmethod
    def _words(source: Mapping[str, Any], path: str | None) -> str:
        value = None if path is None else single(value_at(source, path))
        return "" if value is None else str(value)


def own_layout(generation: Generation, properties: Mapping[str, Any]) -> Layout:
    """Of an index that Steelyard wrote.

    Args:
        generation: that it holds.
        properties: of its mapping; older ones store texts without indexing them.
    """
    paths = {name: f"{METADATA}.{name}" for name in generation.fields}
    return Layout(
        fields=paths,
        sources=paths,
        texts=tuple(path for path in (TITLE, TEXT) if is_indexed_text(properties.get(path))),
    )


def is_indexed_text(mapping: Mapping[str, Any] | None) -> bool:
    """Whether a field's words can be searched."""
    return (
        mapping is not None and mapping.get("type") == "text" and mapping.get("index") is not False
    )


def value_at(source: Mapping[str, Any], path: str) -> Any:
    """The value of a path in a document, which may write ``a.b`` or ``{a: {b: ...}}``."""
    if path in source:
        return source[path]
    head, dot, rest = path.partition(".")
    while dot:
        inner = source.get(head)
        if isinstance(inner, Mapping):
            return value_at(inner, rest)
        more, dot, rest = rest.partition(".")
        head = f"{head}.{more}"
    return None


def single(value: Any) -> Any:
    """The first of several values."""
    while isinstance(value, list):
        value = value[0] if value else None
    return value
