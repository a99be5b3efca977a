"""Small tokenizers of every make that the fast way knows, and of some that it does not."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, trainers
from tokenizers import pre_tokenizers as pre

from steelyard.encoders.pack.query_tokenizer import query_tokenizer
from tests.conftest import scifact_lines

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

ADDED = [
    AddedToken("[MASK]", special=True),
    AddedToken("<left>", lstrip=True, normalized=False),
    AddedToken("<Right>", rstrip=True, normalized=True),
    AddedToken("Steelyard", single_word=True, normalized=True),
    AddedToken("protein", single_word=True, normalized=False),
    AddedToken("na\u00efve", normalized=True),
    AddedToken("~=~"),
]


def _with_pattern(pattern: str) -> Any:
    return pre.Sequence(
        [
            pre.Split(Regex(pattern), "isolated"),
            pre.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _digits_first(*, one_by_one: bool) -> Any:
    digits = pre.Digits(individual_digits=one_by_one)
    return pre.Sequence([digits, pre.ByteLevel(add_prefix_space=False)])


def _metaspace(scheme: str, *, split: bool = True) -> Any:
    return pre.Metaspace(prepend_scheme=scheme, split=split)


_BERT = normalizers.BertNormalizer
_STRIPPED = [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
_BYTES = pre.ByteLevel.alphabet()

KNOWN: dict[str, Callable[[], tuple[str, Any, Any]]] = {
    "bert": lambda: ("wordpiece", _BERT(), pre.BertPreTokenizer()),
    "bert-cased": lambda: ("wordpiece", _BERT(lowercase=False), pre.BertPreTokenizer()),
    "bert-unclean": lambda: (
        "wordpiece",
        normalizers.Sequence(_STRIPPED),
        pre.BertPreTokenizer(),
    ),
    "bert-nfc": lambda: ("wordpiece", normalizers.NFC(), pre.BertPreTokenizer()),
    "gpt2": lambda: ("bytes", None, pre.ByteLevel(add_prefix_space=False)),
    "gpt2-lower": lambda: (
        "bytes",
        normalizers.Lowercase(),
        pre.ByteLevel(add_prefix_space=False),
    ),
    "roberta": lambda: ("bytes", None, pre.ByteLevel(add_prefix_space=True)),
    "llama3": lambda: ("bytes", None, _with_pattern(LLAMA3)),
    "qwen2": lambda: ("bytes", normalizers.NFC(), _with_pattern(QWEN2)),
    "llama3-lower": lambda: (
        "bytes",
        normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase()]),
        _with_pattern(LLAMA3),
    ),
    "smollm2": lambda: ("bytes", None, _digits_first(one_by_one=True)),
    "runs-of-digits": lambda: ("bytes", normalizers.NFKC(), _digits_first(one_by_one=False)),
    "metaspace-always": lambda: ("bpe", None, _metaspace("always")),
    "metaspace-first": lambda: ("unigram", normalizers.NFKD(), _metaspace("first")),
    "metaspace-never": lambda: ("bpe", normalizers.Lowercase(), _metaspace("never")),
}

UNKNOWN: dict[str, Callable[[], tuple[str, Any, Any]]] = {
    "other normaliser": lambda: (
        "bpe",
        normalizers.Replace(" ", "_"),
        _metaspace("always"),
    ),
    "other pre-tokenizer": lambda: ("wordpiece", None, pre.Whitespace()),
    "whole text at once": lambda: ("unigram", None, _metaspace("always", split=False)),
    "bytes without a pattern": lambda: (
        "bytes",
        None,
        pre.ByteLevel(add_prefix_space=False, use_regex=False),
    ),
    "digits, no pattern": lambda: (
        "bytes",
        None,
        pre.Sequence([pre.Digits(), pre.ByteLevel(add_prefix_space=False, use_regex=False)]),
    ),
    "other pattern": lambda: ("bytes", None, _with_pattern(r"\p{L}+|\P{L}+")),
    "no pre-tokenizer": lambda: ("unigram", None, None),
}


@functools.cache
def trained(name: str, *, added: bool = True) -> str:
    """The tokenizer.json of that make, as a pack carries it, trained on real abstracts."""
    model, normalizer, pre_tokenizer = {**KNOWN, **UNKNOWN}[name]()
    if model == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106
        trainer: Any = trainers.WordPieceTrainer(vocab_size=900, special_tokens=["[UNK]"])
    elif model == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=900,
            special_tokens=["<unk>"],
            unk_token="<unk>",  # noqa: S106
        )
    else:
        tokenizer = Tokenizer(models.BPE(unk_token=None if model == "bytes" else "<unk>"))
        alphabet = _BYTES if model == "bytes" else []
        trainer = trainers.BpeTrainer(
            vocab_size=900,
            initial_alphabet=alphabet,
            special_tokens=[] if model == "bytes" else ["<unk>"],
        )
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts()[-30 if model == "unigram" else 0 :], trainer)
    if added:
        tokenizer.add_tokens(ADDED)
    return query_tokenizer(tokenizer.to_str(), lowercase=False).text


@functools.cache
def texts() -> list[str]:
    """Real abstracts, and what they seldom hold."""
    return [line["text"] for line in scifact_lines(150)] + [
        "it's we're they'll I'd don't he'd I've I'm IT'S WE'RE 0123456789 1,024"
    ]


def settings_of(name: str) -> dict[str, Any]:
    """The same, parsed."""
    parsed: dict[str, Any] = json.loads(trained(name))
    return parsed
