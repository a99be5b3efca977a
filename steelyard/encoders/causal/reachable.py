"""Which tokens a query can have: the only ones whose rows a table needs.

Texts are lower-cased before they are cut into tokens, so a token with a letter from A to Z comes
out of none. Only these letters are looked at: their UTF-8 bytes are in no other character, so it
makes no difference whether a token is characters or bytes. A tokenizer with a part that might
bring such a letter back (NFKC makes TM of one character) has every token reachable.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CAPITAL = re.compile("[A-Z]")
_BYTE_TOKEN = re.compile("<0x[0-9A-F]{2}>")

_KEEPS_LOWER_CASE = {"Lowercase", "NFC", "NFD", "StripAccents", "Strip", "Prepend", "Replace"}
"""Normalisers that make no letter from A to Z of a lower-cased text."""

_ONLY_SPLITS = {
    "BertPreTokenizer",
    "ByteLevel",
    "CharDelimiterSplit",
    "Digits",
    "Metaspace",
    "Punctuation",
    "Split",
    "UnicodeScripts",
    "Whitespace",
    "WhitespaceSplit",
}
"""Pre-tokenizers that add no letters; ByteLevel writes the bytes of A to Z as they are."""

_MODELS = {"BPE", "Unigram", "WordLevel", "WordPiece"}
"""Models whose tokens are pieces of the text, with fixed marks."""


def reachable_tokens(tokenizer_json: str) -> NDArray[np.bool_]:
    """Which tokens some text can give.

    Args:
        tokenizer_json: with lower-casing baked in; without, every token is reachable.

    Returns:
        bool ``[largest id + 1]``; False only where no text has the token.
    """
    value = json.loads(tokenizer_json)
    model, added = value["model"], value.get("added_tokens") or []
    tokens = _tokens(model)
    ids = [*tokens.values(), *(int(token["id"]) for token in added)]
    if not _stays_lower_case(value):
        return np.ones(max(ids) + 1, dtype=np.bool_)
    reachable = np.zeros(max(ids) + 1, dtype=np.bool_)
    for token, place in tokens.items():
        by_byte = model.get("byte_fallback") and _BYTE_TOKEN.fullmatch(token)
        reachable[place] = by_byte or not _CAPITAL.search(token)
    # Found in a text as they are written, or put where nothing else fits.
    reachable[[int(token["id"]) for token in added]] = True
    unknown = tokens.get(model.get("unk_token") or "", model.get("unk_id"))
    if unknown is not None:
        reachable[unknown] = True
    return reachable


def _tokens(model: dict[str, Any]) -> dict[str, int]:
    vocabulary: Any = model["vocab"]
    if isinstance(vocabulary, dict):
        return dict(vocabulary)
    return {token: place for place, (token, _) in enumerate(vocabulary)}  # Unigram's


def _stays_lower_case(value: dict[str, Any]) -> bool:
    """Whether what the model is given to cut has no letter from A to Z."""
    normalisers = _parts(value.get("normalizer"), "normalizers")
    last = max((i for i, part in enumerate(normalisers) if _lowercases(part)), default=None)
    if last is None:
        return False
    model = value["model"]
    marks = [model.get(name) or "" for name in ("continuing_subword_prefix", "end_of_word_suffix")]
    return (
        all(part["type"] in _KEEPS_LOWER_CASE for part in normalisers[last + 1 :])
        and all(
            part["type"] in _ONLY_SPLITS
            for part in _parts(value.get("pre_tokenizer"), "pretokenizers")
        )
        and model.get("type") in _MODELS
        and not any(map(_CAPITAL.search, [*marks, *_written(value)]))
    )


def _written(value: dict[str, Any]) -> list[str]:
    """What normalisers and pre-tokenizers write into a text."""
    parts = _parts(value.get("normalizer"), "normalizers")
    parts += _parts(value.get("pre_tokenizer"), "pretokenizers")
    names = ("content", "prepend", "replacement")
    return [str(part[name]) for part in parts for name in names if part.get(name)]


def _lowercases(part: dict[str, Any]) -> bool:
    return part["type"] == "Lowercase" or (
        part["type"] == "BertNormalizer" and bool(part.get("lowercase"))
    )


def _parts(part: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    """The parts of a sequence, or the one there is."""
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    return [inner for one in part[name] for inner in _parts(one, name)]
