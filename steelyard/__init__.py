"""Steelyard: heavy documents, weightless queries.

A language model reads every document once, offline. A query costs a tokenizer call and a
table look-up, so the search cluster scores dense + sparse hybrid queries and hosts no model.

``import steelyard`` needs numpy, scipy, tokenizers and safetensors only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from steelyard.errors import SteelyardError

if TYPE_CHECKING:
    from steelyard.encoders.query.encoder import QueryEncoder
    from steelyard.plugin.searcher import Searcher

__version__ = "0.1.0"
__all__ = ["QueryEncoder", "Searcher", "SteelyardError", "__version__"]


def __getattr__(name: str) -> Any:
    """Load the two front doors on first use, so that ``import steelyard`` stays instant."""
    if name == "QueryEncoder":
        from steelyard.encoders.query.encoder import QueryEncoder

        return QueryEncoder
    if name == "Searcher":
        from steelyard.plugin.searcher import Searcher

        return Searcher
    raise AttributeError(f"module 'steelyard' has no attribute {name!r}")
