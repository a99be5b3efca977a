"""How a tokenizer cuts text into words, read from its tokenizer.json.

Two facts are needed to remember token ids by piece of text. One: what the tokenizer makes of a
piece between two spaces does not depend on what stands around it. Two: which words ("pre-tokens")
it cuts such a piece into, if it is ASCII. Both are known for the normalisers and pre-tokenizers
below; a tokenizer with any other has no fast way.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Split: TypeAlias = Callable[[str], list[str]]

_IDENTITY = frozenset({"NFC", "NFD", "NFKC", "NFKD", "StripAccents"})
"""Normalisers that leave ASCII as it is."""

_KEEPS_SPACES = frozenset({"NFC", "NFD", "Lowercase"})
"""Those that make no space of another character, and nothing of none."""

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_SPLITS = frozenset({_GPT2, _LLAMA3, _QWEN2})
"""Patterns that match every character, and a space after another character only by itself."""

_CONTRACTS = "'"
"""The patterns above take some letters behind it, as in "don't", into its word."""

_COMPOSED = "<=>"
"""What NFC and NFKC join with a stroke behind it to one character, such as U+2260."""

_SPACE_MARK = "\u2581"
_BYTE_SPACE = "\u0120"
"""How byte-level vocabularies write a space; other printable ASCII stands for itself."""


@dataclass(frozen=True, slots=True)
class WordRules:
    """What is known of a tokenizer.

    Attributes:
        split: printable ASCII, with no space but perhaps at its beginning, to its words: nothing
            is lost but, with ``drops_spaces``, those. Each word is its own only word.
        written: a word as the model's vocabulary writes it.
        lowercase: the tokenizer lower-cases; ``split`` takes text that already is.
        leading: a text that begins with none of these characters gets a space, if it is not
            empty; no characters: no text does.
        white_space: characters that separate as a space does.
        drops_spaces: spaces belong to no word. Only then there is ``apart``, only else there are
            ``runs``, ``joined`` and ``signs_lead``.
        apart: ASCII characters that are words wherever they stand.
        runs: several spaces that follow each other stay in one piece with what they stand before.
        joined: where letters, digits and signs, all ASCII, follow each other a word ends, but
            perhaps beside one of these signs; None: it need not.
        signs_lead: a sign and the letters behind it may be one word all the same.
        beyond_ascii: pieces with other printable characters do not depend on others either.
    """

    split: Split
    written: Callable[[str], str]
    lowercase: bool
    leading: str = ""
    white_space: str = ""
    drops_spaces: bool = False
    apart: str = ""
    runs: bool = False
    joined: str | None = None
    signs_lead: bool = False
    beyond_ascii: bool = False


def word_rules(tokenizer: Mapping[str, Any]) -> WordRules | None:
    """The rules of a tokenizer.json; None: not known."""
    normalizer, settings = tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer")
    lowercase = _lowercases(normalizer)
    if lowercase is None or settings is None:
        return None
    if settings["type"] == "BertPreTokenizer":
        composes = not _kinds(normalizer).isdisjoint({"NFC", "NFKC"})
        joined = _COMPOSED if composes else ""
        return WordRules(
            re.compile("[A-Za-z0-9]+|[^ A-Za-z0-9]").findall,
            str,
            lowercase,
            white_space="\t\n\r",
            drops_spaces=True,
            beyond_ascii=True,
            apart="".join(c for c in string.punctuation if c not in joined),
        )
    beyond_ascii = _KEEPS_SPACES.issuperset(_kinds(normalizer))
    if settings["type"] == "Metaspace":
        return _metaspace(settings, lowercase, beyond_ascii)
    return _byte_level(settings, lowercase, beyond_ascii)


def _kinds(normalizer: Mapping[str, Any] | None) -> set[str]:
    """Types of the normalisers, sequences opened."""
    if normalizer is None:
        return set()
    if normalizer["type"] == "Sequence":
        return set().union(*map(_kinds, normalizer["normalizers"]))
    return {normalizer["type"]}


def _lowercases(normalizer: Mapping[str, Any] | None) -> bool | None:
    """Whether it lower-cases ASCII and does nothing else to it; None: it does something else."""
    if normalizer is None:
        return False
    kind = normalizer["type"]
    if kind == "Sequence":
        parts = [_lowercases(part) for part in normalizer["normalizers"]]
        return None if None in parts else any(parts)
    if kind == "BertNormalizer":
        return bool(normalizer["lowercase"])
    return True if kind == "Lowercase" else False if kind in _IDENTITY else None


def _metaspace(
    settings: Mapping[str, Any], lowercase: bool, beyond_ascii: bool
) -> WordRules | None:
    """A word is a space and what follows it; the first may get a space of its own."""
    if settings["replacement"] != _SPACE_MARK or not settings.get("split", True):
        return None
    return WordRules(
        lambda text: [text] if text else [],
        lambda word: word.replace(" ", _SPACE_MARK),
        lowercase,
        leading="" if settings.get("prepend_scheme", "always") == "never" else f" {_SPACE_MARK}",
        beyond_ascii=beyond_ascii,
    )


def _byte_level(
    settings: Mapping[str, Any], lowercase: bool, beyond_ascii: bool
) -> WordRules | None:
    """Cut by one pattern after the other; the vocabulary has a sign for the space."""
    parts = settings["pretokenizers"] if settings["type"] == "Sequence" else [settings]
    if not parts or parts[-1]["type"] != "ByteLevel":
        return None
    patterns: list[str] = []
    for part in parts[:-1]:
        if part["type"] == "Digits":
            patterns.append("[0-9]|[^0-9]+" if part["individual_digits"] else "[0-9]+|[^0-9]+")
        elif _is_known_split(part):
            patterns.append(part["pattern"]["Regex"])
        else:
            return None
    by_space = any(part["type"] == "Split" for part in parts)
    if parts[-1].get("use_regex", True):
        patterns.append(_GPT2)
        by_space = True
    prefix = bool(parts[-1]["add_prefix_space"])
    if not by_space or (prefix and len(parts) > 1):
        return None
    return WordRules(
        _by_patterns(list(map(_ascii, patterns))),
        lambda word: word.replace(" ", _BYTE_SPACE),
        lowercase,
        leading=" " if prefix else "",
        runs=True,
        beyond_ascii=beyond_ascii,
        # A piece from within a text, if not ASCII, is shown to the tokenizer, which would put a
        # space before it.
        joined=None if prefix else _CONTRACTS,
        # Theirs has "[^\r\n\p{L}\p{N}]?\p{L}+".
        signs_lead=not {_LLAMA3, _QWEN2}.isdisjoint(patterns),
    )


def _by_patterns(patterns: Sequence[str]) -> Split:
    """Words of a byte-level tokenizer: cut by one pattern after the other."""
    first, *others = (re.compile(pattern).findall for pattern in patterns)

    def split(text: str) -> list[str]:
        # All patterns leave letters together, and a space with them.
        if text[1:].isalpha() and (text[0] == " " or text[0].isalpha()):
            return [text]
        words = first(text)
        for find in others:
            words = [word for piece in words for word in find(piece)]
        return words

    return split


def _is_known_split(settings: Mapping[str, Any]) -> bool:
    return bool(
        settings["type"] == "Split"
        and settings["pattern"].get("Regex") in _SPLITS
        and settings["behavior"] == "Isolated"
        and not settings["invert"]
    )


def _ascii(pattern: str) -> str:
    """A pattern of the library's in Python's, for ASCII."""
    return (
        pattern.replace(r"[^\s\p{L}\p{N}]", r"[^\sA-Za-z0-9]")
        .replace(r"[^\r\n\p{L}\p{N}]", r"[^\r\nA-Za-z0-9]")
        .replace(r"\p{L}", "[A-Za-z]")
        .replace(r"\p{N}", "[0-9]")
    )
