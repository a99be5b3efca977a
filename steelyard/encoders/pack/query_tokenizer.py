"""From a model's tokenizer to the one a query pack carries."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from steelyard.errors import InputError


@dataclass(frozen=True, slots=True)
class QueryTokenizer:
    """A tokenizer ready for a pack.

    Attributes:
        text: tokenizer.json without specials, padding and truncation, lower-casing baked in.
        rows: largest token id + 1: the number of table rows.
        tokens: strings of all tokens.
        special_ids: special tokens and the unknown token: they carry no meaning of a text.
    """

    text: str
    rows: int
    special_ids: list[int]
    tokens: frozenset[str] = frozenset()


def query_tokenizer(tokenizer_json: str, *, lowercase: bool = True) -> QueryTokenizer:
    """Strip what a query side must not do and put lower-casing first, as LightRetriever does.

    Args:
        tokenizer_json: the document model's own tokenizer.
        lowercase: whether texts are lower-cased; a tokenizer that already does is left as it is.

    Raises:
        InputError: not a tokenizer.json.
    """
    try:
        value = json.loads(tokenizer_json)
        value["post_processor"] = value["padding"] = value["truncation"] = None
        if lowercase and not _lowercases(value.get("normalizer")):
            value["normalizer"] = _lowercase_first(value.get("normalizer"))
        text = json.dumps(value, ensure_ascii=False)
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"unreadable tokenizer.json: {error}") from error
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    special = {int(token["id"]) for token in value.get("added_tokens", []) if token["special"]}
    unknown = value["model"].get("unk_token")
    if isinstance(unknown, str) and unknown in vocabulary:
        special.add(vocabulary[unknown])
    if isinstance(value["model"].get("unk_id"), int):
        special.add(value["model"]["unk_id"])
    return QueryTokenizer(
        text, max(vocabulary.values()) + 1, sorted(special), frozenset(vocabulary)
    )


def _lowercases(normalizer: dict[str, Any] | None) -> bool:
    if normalizer is None:
        return False
    if normalizer["type"] == "Sequence":
        return any(_lowercases(part) for part in normalizer["normalizers"])
    return normalizer["type"] == "Lowercase" or bool(normalizer.get("lowercase"))


def _lowercase_first(normalizer: dict[str, Any] | None) -> dict[str, Any]:
    lowercase: dict[str, Any] = {"type": "Lowercase"}
    if normalizer is None:
        return lowercase
    rest = normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]
    return {"type": "Sequence", "normalizers": [lowercase, *rest]}
