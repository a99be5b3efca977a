"""A causal model's tokenizer as LightRetriever uses it: lower-cased, ``bos A eos``.

tokenizer.json is read with the ``tokenizers`` library itself: transformers 5 rebuilds the
normaliser of some families and would silently lose the lower-casing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer

from steelyard.encoders.causal.source import CausalFiles
from steelyard.encoders.json_object import read_json
from steelyard.encoders.pack.query_tokenizer import query_tokenizer
from steelyard.encoders.query.tokenizer import well_formed
from steelyard.errors import InputError, first_line, needs_extra

MADE_TOKENS = {"bos": "<|bos|>", "eos": "<|eos|>", "pad": "<|pad|>", "sep": "<|sep|>"}
"""Official names of the special tokens that are made when a tokenizer has none."""

FAMILY_TOKENS = {
    "qwen": {"pad": "<|im_end|>", "sep": "<|im_start|>"},
    "llama": {"pad": "<|reserved_special_token_0|>", "sep": "<|reserved_special_token_1|>"},
    "gemma": {"sep": "<bos>"},
}
"""Where the official code takes another name, by the model's family."""


class CausalTokenizer:
    """Texts to ``bos A eos``.

    Attributes:
        text: tokenizer.json with lower-casing baked in, without specials, padding, truncation.
        rows: number of token ids, the largest + 1.
        bos, eos: ids put before and after every text.
        pad: the id that takes no part in a query; None if there is no room for one.
        made: special tokens that the tokenizer lacked and that were added.
    """

    def __init__(
        self,
        tokenizer_json: str,
        special: dict[str, str | None],
        *,
        embedding_rows: int,
        family: str = "",
        edit: bool = True,
        lowercase: bool = True,
    ) -> None:
        """Edit a model's tokenizer as the official code does.

        Args:
            tokenizer_json: the model's.
            special: names of its tokens ``bos``, ``eos``, ``pad`` and ``sep``; None is missing.
            embedding_rows: rows of the model's embedding: a made pad or sep needs a spare one.
            family: transformers' ``model_type``.
            edit: also make a missing sep; False for a tokenizer that was edited and saved.
            lowercase: lower-case all texts.
        """
        stripped = query_tokenizer(tokenizer_json, lowercase=lowercase)
        tokenizer = Tokenizer.from_str(stripped.text)
        named = next((t for f, t in FAMILY_TOKENS.items() if family.startswith(f)), {})
        self.made: tuple[str, ...] = ()
        ids: dict[str, int | None] = {}
        for name in ("bos", "eos", "pad", "sep"):
            token, missing = special.get(name), special.get(name) is None
            if missing and (name != "sep" or edit):
                token = named.get(name, MADE_TOKENS[name])
                there = tokenizer.token_to_id(token) is not None
                needed = name in ("bos", "eos")
                if there or needed or tokenizer.get_vocab_size() < embedding_rows:
                    tokenizer.add_special_tokens([AddedToken(token, normalized=False)])
                    self.made += () if there else (token,)
            ids[name] = None if token is None else tokenizer.token_to_id(token)
            if not missing and ids[name] is None and name != "sep":
                raise InputError(
                    f"the {name} token {token!r} is not in the tokenizer",
                    "tokenizer.json and tokenizer_config.json are of different models",
                )
        self.bos, self.eos, self.pad = int(ids["bos"] or 0), int(ids["eos"] or 0), ids["pad"]
        edited = query_tokenizer(tokenizer.to_str(), lowercase=lowercase)
        self.text, self.rows = edited.text, edited.rows
        self._tokenizer = tokenizer

    def ids(self, texts: Sequence[str], limit: int, before: str = "") -> list[list[int]]:
        """``bos A eos`` of n texts, cut to ``limit`` tokens including the two specials.

        Args:
            texts: n texts.
            limit: most tokens.
            before: put in front of every text.
        """
        prepared = [before + text for text in texts] if before else list(texts)
        try:
            encodings = self._tokenizer.encode_batch_fast(prepared, add_special_tokens=False)
        except (TypeError, UnicodeError):
            prepared = [well_formed(text) for text in prepared]
            encodings = self._tokenizer.encode_batch_fast(prepared, add_special_tokens=False)
        return [[self.bos, *e.ids[: limit - 2], self.eos] for e in encodings]

    def prompt_ids(self, prompt: str) -> list[int]:
        """``bos`` and a prompt, tokenised by itself: what stands before a query's token."""
        return [self.bos, *self._tokenizer.encode(prompt, add_special_tokens=False).ids]


def padded(rows: Sequence[Sequence[int]], eos: int) -> NDArray[np.int64]:
    """Token ids of n texts, ``[n, longest]``, with eos after each: causal attention looks back."""
    ids = np.full((len(rows), max(map(len, rows), default=0)), eos, dtype=np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
    return ids


def read_causal_tokenizer(
    files: CausalFiles, *, family: str, embedding_rows: int, lowercase: bool = True
) -> CausalTokenizer:
    """Read the tokenizer of a model, or the edited one that its adapter carries.

    Args:
        files: where the model is.
        family: transformers' ``model_type``: decides the names of missing special tokens.
        embedding_rows: rows of the model's embedding.
        lowercase: lower-case all texts.

    Raises:
        InputError: no tokenizer, or one whose special tokens it does not know.
    """
    # A GGUF file carries its own tokenizer; what lies beside it may be anything.
    folders = [files.adapter, None if files.gguf_file else files.folder]
    carrying = [f for f in folders if f is not None and (f / "tokenizer.json").is_file()]
    if carrying:
        folder = carrying[0]
        text = (folder / "tokenizer.json").read_text(encoding="utf-8")
        special = _named_specials(folder)
        if special["bos"] is None and special["eos"] is None:
            special = _unnamed_specials(files, text, special)
    else:
        text, special = _by_transformers(files)
    saved = bool(carrying) and carrying[0] == files.adapter
    return CausalTokenizer(
        text,
        special,
        embedding_rows=embedding_rows,
        family=family,
        edit=not saved,
        lowercase=lowercase,
    )


def _named_specials(folder: Path) -> dict[str, str | None]:
    """Special tokens by tokenizer_config.json, else by special_tokens_map.json."""
    found: dict[str, str | None] = dict.fromkeys(MADE_TOKENS)
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        values = read_json(folder / file)
        for name in found:
            value: Any = values.get(f"{name}_token")
            content = value.get("content") if isinstance(value, dict) else value
            found[name] = content if isinstance(content, str) else found[name]
    return found


def _unnamed_specials(
    files: CausalFiles, text: str, special: dict[str, str | None]
) -> dict[str, str | None]:
    """Special tokens that a folder leaves to the base model's, or to transformers' class."""
    vocabulary = query_tokenizer(text).tokens
    found = _named_specials(files.folder)
    if found["eos"] is None:
        try:
            found = _by_transformers(files)[1]
        except InputError:
            return special
    return {n: special[n] or (t if t in vocabulary else None) for n, t in found.items()}


def _by_transformers(files: CausalFiles) -> tuple[str, dict[str, str | None]]:
    """A tokenizer that has no tokenizer.json: of a GGUF file, or one to convert."""
    with needs_extra("index"):
        from transformers import AutoTokenizer
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(files.folder), gguf_file=files.gguf_file, trust_remote_code=False
        )
        text = tokenizer.backend_tokenizer.to_str()
    except Exception as error:  # whatever a foreign folder makes the library raise
        raise InputError(
            f"no readable tokenizer in {files.folder}: {first_line(error)}",
            "put the model's tokenizer.json beside it",
        ) from error
    names = {name: getattr(tokenizer, f"{name}_token", None) for name in MADE_TOKENS}
    return str(text), names
