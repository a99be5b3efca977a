"""One arm's settings inside a tokenizer.json, for consumers that know nothing of packs."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any


def baked_tokenizer(tokenizer_json: str, *, text_prefix: str, max_tokens: int | None) -> str:
    """A pack's tokenizer that puts the prefix before a text and cuts, by itself.

    The ids equal ``PackTokenizer``'s, ignored tokens still among them, but for two kinds of text
    where ``text_prefix`` is not empty. A normaliser sees the pieces between special tokens: an
    empty text has no piece, so it gets no prefix, and a text that spells out a special token
    (``[SEP]``) gets the prefix before every piece.

    Args:
        tokenizer_json: of the pack: no special tokens, padding or truncation.
        text_prefix: goes through lower-casing and the rest as if it were part of the text.
        max_tokens: longer texts are cut; None cuts nothing.
    """
    value = json.loads(tokenizer_json)
    if text_prefix:
        value["normalizer"] = _prepend_first(text_prefix, value.get("normalizer"))
    if max_tokens is not None:
        value["truncation"] = {
            "direction": "Right",
            "max_length": max_tokens,
            "strategy": "LongestFirst",
            "stride": 0,
        }
    return json.dumps(value, ensure_ascii=False)


def term_tokenizer(tokenizer_json: str, ignored_ids: Collection[int]) -> str:
    """A tokenizer that names the terms of the sparse arm when it decodes their ids one by one.

    ML Commons finds a term's name so, and leaves special tokens out. Without a decoder the name
    is the token's string in the vocabulary (``Ġarm`` and not `` arm``), and exactly the ignored
    ones of the added tokens are special.
    """
    value = json.loads(tokenizer_json)
    value["decoder"] = None
    for token in value.get("added_tokens", []):
        token["special"] = token["id"] in ignored_ids
    return json.dumps(value, ensure_ascii=False)


def prefix_notes(text_prefix: str) -> list[str]:
    """What a user should know of a prefix that the tokenizer puts before a text."""
    if not text_prefix:
        return []
    return [
        f"the tokenizer puts {text_prefix!r} before a query, but not before an empty one, and "
        "once more after every special token that a query spells out"
    ]


def _prepend_first(prefix: str, normalizer: dict[str, Any] | None) -> dict[str, Any]:
    prepend: dict[str, Any] = {"type": "Prepend", "prepend": prefix}
    if normalizer is None:
        return prepend
    rest = normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]
    return {"type": "Sequence", "normalizers": [prepend, *rest]}
