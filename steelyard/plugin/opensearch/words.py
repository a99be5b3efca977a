"""Query text cut to what OpenSearch searches: a query of 1,024 clauses is refused."""

from __future__ import annotations

import re

MAX_WORDS = 256
"""Words of a query that are searched: two clauses each, and room for filters."""

MAX_CHARACTERS = 255
"""Longest token of OpenSearch's tokenizers; a longer one would be several."""

_MAX_TEXT = 65_536

_SURROGATE = re.compile("[\ud800-\udfff]")
# Scripts without spaces are a token a character for some analyzers, so here for all of them.
_WORD = re.compile(r"[^\W\u0e00-\U0010ffff]+|[\u0e00-\u1fff\u2c00-\U0010ffff]|[\u2190-\u2bff]")


def bounded_text(text: str) -> str:
    """The text, or its first 256 distinct words where there are more.

    Lone surrogates, which no server takes, become U+FFFD.
    """
    text = _SURROGATE.sub("\ufffd", text)
    words: dict[str, str] = {}
    count = 0
    longest = 0
    for found in _WORD.finditer(text):
        word = found[0]
        longest = max(longest, len(word))
        count += 1
        if len(words) < MAX_WORDS:
            word = word[:MAX_CHARACTERS]
            words.setdefault(word.lower(), word)
    if count <= MAX_WORDS and longest <= MAX_CHARACTERS and len(text) <= _MAX_TEXT:
        return text
    return " ".join(words.values())
