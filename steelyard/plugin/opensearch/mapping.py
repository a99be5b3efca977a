"""The body of an index, and Steelyard's description of it in ``_meta``.

``dense`` is an HNSW graph of Lucene over inner products. ``sparse`` is rank_features: a feature a
token string, its value the integer impact. Title and text are indexed for the engine's own BM25.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from steelyard.encoders.pack.json_fields import read_dataclass
from steelyard.errors import EngineError, PackError
from steelyard.plugin import engine as arms
from steelyard.plugin.engine import Generation
from steelyard.plugin.opensearch.layout import (
    DENSE,
    ID,
    METADATA,
    PARENT,
    TEXT,
    TITLE,
    Layout,
    own_layout,
)
from steelyard.plugin.opensearch.layout import (
    SPARSE as SPARSE,
)
from steelyard.plugin.text_match import TextMatch
from steelyard.plugin.vocabulary import TermKeys

DESCRIPTION = "steelyard"

HNSW = {"m": 16, "ef_construction": 128}
"""Links a node, and candidates looked at for each document that is added."""

PROBES = 16
"""So many tokens are noted in ``_meta``, so that another tokenizer is recognised."""

_KINDS = {"keyword": "keyword", "int": "long", "float": "double", "bool": "boolean"}


@dataclass(frozen=True, slots=True)
class Described:
    """What an index says of itself.

    Attributes:
        generation: that it holds.
        tokens: some of the pack's, by id.
        layout: where things are.
    """

    generation: Generation
    tokens: Mapping[str, str]
    layout: Layout


def index_body(
    generation: Generation, keys: TermKeys, created: str, text_match: TextMatch
) -> dict[str, Any]:
    """Settings and mapping of an empty generation; an arm it does not hold has no field.

    Args:
        generation: what to describe.
        keys: of the pack's tokens.
        created: the time, for people.
        text_match: how texts are made into words.
    """
    # A number sent as a string, or 1.5 for an integer, is an error and not converted.
    numbers = {"coerce": False}
    metadata = {
        name: {"type": _KINDS[kind], **(numbers if kind in ("int", "float") else {})}
        for name, kind in generation.fields.items()
    }
    searched = {"type": "text", "analyzer": text_match.analyzer}
    settings: dict[str, Any] = {"refresh_interval": "-1"}
    properties: dict[str, Any] = {
        ID: {"type": "keyword"},
        PARENT: {"type": "keyword"},
        TITLE: searched,
        TEXT: searched,
        METADATA: {"type": "object", "properties": metadata},
    }
    if arms.DENSE in generation.arms:
        settings["knn"] = True
        properties[DENSE] = {
            "type": "knn_vector",
            "dimension": generation.dims,
            "method": {
                "name": "hnsw",
                "engine": "lucene",
                "space_type": "innerproduct",
                "parameters": HNSW,
            },
        }
    if arms.SPARSE in generation.arms:
        properties[SPARSE] = {"type": "rank_features"}
    description = {"created": created, "generation": asdict(generation)}
    description["tokens"] = _probes(generation, keys)
    return {
        "settings": {"index": settings},
        "mappings": {
            "dynamic": "strict",
            "_meta": {DESCRIPTION: description},
            "properties": properties,
        },
    }


def described(mappings: Mapping[str, Any], where: str) -> Described:
    """What a mapping says of its index.

    Args:
        mappings: of the index.
        where: the index, for messages.

    Raises:
        EngineError: the index was neither written nor adopted by Steelyard.
    """
    found = (mappings.get("_meta") or {}).get(DESCRIPTION)
    found = found if isinstance(found, dict) else {}
    generation = Generation.from_json(json.dumps(found.get("generation")), where)
    adopted = found.get("layout")
    if adopted is None:
        layout = own_layout(generation, mappings.get("properties") or {})
    else:
        try:
            layout = read_dataclass(Layout, adopted, where)
        except PackError as error:
            raise EngineError(
                f"{where} does not carry Steelyard's description: {error.message}",
                "adopt it again with 'steelyard adopt'",
            ) from error
    return Described(generation, found.get("tokens") or {}, layout)


def adopted_meta(
    mappings: Mapping[str, Any],
    generation: Generation,
    layout: Layout,
    keys: TermKeys,
    created: str,
) -> dict[str, Any]:
    """The ``_meta`` of an adopted index; what others wrote there stays."""
    description = {
        "created": created,
        "generation": asdict(generation),
        "tokens": _probes(generation, keys) if keys.known else {},
        "layout": asdict(layout),
    }
    return {**(mappings.get("_meta") or {}), DESCRIPTION: description}


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
    """Some tokens by id, spread over the vocabulary; those without a string are left out.

    None where there are no terms to key.
    """
    if arms.SPARSE not in generation.arms:
        return {}
    step = max(1, generation.vocabulary_size // PROBES)
    probes = {}
    for identifier in range(step - 1, generation.vocabulary_size, step):
        key = keys.text(identifier)
        if key is not None:
            probes[str(identifier)] = key
    return probes
