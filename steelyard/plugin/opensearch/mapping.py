"""The body of an index, and Steelyard's description of it in ``_meta``.

``dense`` is an HNSW graph of Lucene over inner products. ``sparse`` is rank_features: a feature a
token string, its value the integer impact. Texts are stored, not indexed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from steelyard.errors import EngineError
from steelyard.plugin.engine import Generation
from steelyard.plugin.opensearch.filter import METADATA
from steelyard.plugin.vocabulary import TermKeys

DESCRIPTION = "steelyard"
ID, PARENT, TITLE, TEXT, DENSE, SPARSE = "id", "parent_id", "title", "text", "dense", "sparse"

HNSW = {"m": 16, "ef_construction": 128}
"""Links a node, and candidates looked at for each document that is added."""

PROBES = 16
"""So many tokens are noted in ``_meta``, so that another tokenizer is recognised."""

_KINDS = {"keyword": "keyword", "int": "long", "float": "double", "bool": "boolean"}


def index_body(generation: Generation, keys: TermKeys, created: str) -> dict[str, Any]:
    """Settings and mapping of an empty generation.

    Args:
        generation: what to describe.
        keys: of the pack's tokens.
        created: the time, for people.
    """
    # A number sent as a string, or 1.5 for an integer, is an error and not converted.
    numbers = {"coerce": False}
    metadata = {
        name: {"type": _KINDS[kind], **(numbers if kind in ("int", "float") else {})}
        for name, kind in generation.fields.items()
    }
    stored = {"type": "text", "index": False}
    return {
        "settings": {"index": {"knn": True, "refresh_interval": "-1"}},
        "mappings": {
            "dynamic": "strict",
            "_meta": {
                DESCRIPTION: {
                    "created": created,
                    "generation": asdict(generation),
                    "tokens": _probes(generation, keys),
                }
            },
            "properties": {
                ID: {"type": "keyword"},
                PARENT: {"type": "keyword"},
                TITLE: stored,
                TEXT: stored,
                METADATA: {"type": "object", "properties": metadata},
                DENSE: {
                    "type": "knn_vector",
                    "dimension": generation.dims,
                    "method": {
                        "name": "hnsw",
                        "engine": "lucene",
                        "space_type": "innerproduct",
                        "parameters": HNSW,
                    },
                },
                SPARSE: {"type": "rank_features"},
            },
        },
    }


def described(mappings: Mapping[str, Any], where: str) -> tuple[Generation, dict[str, str]]:
    """The generation that a mapping describes, and its noted tokens.

    Args:
        mappings: of the index.
        where: the index, for messages.

    Raises:
        EngineError: the index was not written by Steelyard.
    """
    found = mappings.get("_meta", {}).get(DESCRIPTION)
    found = found if isinstance(found, dict) else {}
    generation = Generation.from_json(json.dumps(found.get("generation")), where)
    return generation, found.get("tokens") or {}


def check_tokens(generation: Generation, tokens: Mapping[str, str], keys: TermKeys) -> None:
    """Refuse a tokenizer that is not the one the index was made with.

    Raises:
        EngineError: the first noted token that differs, with both strings.
    """
    if not keys.known or not tokens:
        return
    ours = _probes(generation, keys)
    for identifier, theirs in sorted(tokens.items(), key=lambda item: int(item[0])):
        if ours.get(identifier) != theirs:
            raise EngineError(
                f"token {identifier} is {ours.get(identifier)!r} in the pack's tokenizer and "
                f"{theirs!r} in {generation.name}",
                "open the engine with the pack that the index was made with",
            )


def _probes(generation: Generation, keys: TermKeys) -> dict[str, str]:
    """Some tokens by id, spread over the vocabulary; those without a string are left out."""
    step = max(1, generation.vocabulary_size // PROBES)
    probes = {}
    for identifier in range(step - 1, generation.vocabulary_size, step):
        key = keys.text(identifier)
        if key is not None:
            probes[str(identifier)] = key
    return probes
