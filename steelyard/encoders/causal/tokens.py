"""A causal model's tokenizer as LightRetriever uses it: lower-cased, ``bos A eos``.

tokenizer.json is read with the ``tokenizers`` library itself: transformers 5 rebuilds the
normaliser of some families and would silently lose the lower-casing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from steelyard.encoders.causal.source import CausalFiles
from steelyard.encoders.pack.query_tokenizer import query_tokenizer
from steelyard.errors import InputError, first_line, needs_extra

MADE_TOKENS = {"bos": "<|bos|>", "eos": "<|eos|>"}
"""Official names of the special tokens that are made when a tokenizer has none."""

PAD_TOKENS = {
    "qwen": ("<|im_end|>",),
    "llama": ("<|reserved_special_token_0|>",),
    "mistral": ("[control_8]", "<unk>"),
}
"""Official padding tokens by model family, where a tokenizer names none."""


class CausalTokenizer:
    """Texts to ``bos A eos``.

    Attributes:
        text: tokenizer.json with lower-casing baked in, without specials, padding, truncation.
        rows: number of token ids, the largest + 1.
        bos, eos: ids put before and after every text.
        pad: the id that takes no part in a query; None if there is none.
        made: special tokens that the tokenizer lacked and that were added.
    """

    def __init__(
        self, tokenizer_json: str, special: dict[str, str | None], *, lowercase: bool = True
    ) -> None:
        """Take a model's tokenizer.json and its special tokens ``{"bos", "eos", "pad"}``."""
        stripped = query_tokenizer(tokenizer_json, lowercase=lowercase)
        tokenizer = Tokenizer.from_str(stripped.text)
        self.made: tuple[str, ...] = ()
        ids = {}
        for name in ("bos", "eos"):
            token = special.get(name)
            if token is None:
                token = MADE_TOKENS[name]
                if tokenizer.token_to_id(token) is None:
                    self.made += (token,)
                    tokenizer.add_special_tokens([AddedToken(token, normalized=False)])
            found = tokenizer.token_to_id(token)
            if found is None:
                raise InputError(
                    f"the {name} token {token!r} is not in the tokenizer",
                    "tokenizer.json and tokenizer_config.json are of different models",
                )
            ids[name] = int(found)
        pad = special.get("pad")
        self.bos, self.eos = ids["bos"], ids["eos"]
        self.pad = None if pad is None else tokenizer.token_to_id(pad)
        self.text = stripped.text if not self.made else tokenizer.to_str()
        self.rows = stripped.rows if not self.made else tokenizer.get_vocab_size()
        self._tokenizer = tokenizer

    def ids(self, texts: Sequence[str], limit: int, before: str = "") -> list[list[int]]:
        """``bos A eos`` of n texts, cut to ``limit`` tokens including the two specials.

        Args:
            texts: n texts.
            limit: most tokens.
            before: put in front of every text.
        """
        prepared = [before + text for text in texts] if before else list(texts)
        encodings = self._tokenizer.encode_batch_fast(prepared, add_special_tokens=False)
        return [[self.bos, *e.ids[: limit - 2], self.eos] for e in encodings]

    def prompt_ids(self, prompt: str) -> list[int]:
        """``bos`` and a prompt, tokenised by itself: what stands before a query's token."""
        return [self.bos, *self._tokenizer.encode(prompt, add_special_tokens=False).ids]


def read_causal_tokenizer(
    files: CausalFiles, *, family: str, lowercase: bool = True
) -> CausalTokenizer:
    """Read the tokenizer of a model, or the edited one that its adapter carries.

    Args:
        files: where the model is.
        family: transformers' ``model_type``: decides the padding token if none is named.
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
    else:
        text, special = _by_transformers(files)
    if special["pad"] is None:
        vocabulary = json.loads(text)["model"].get("vocab", {})
        added = {token["content"] for token in json.loads(text).get("added_tokens", [])}
        for name, candidates in PAD_TOKENS.items():
            if family.startswith(name):
                known = (token for token in candidates if token in added or token in vocabulary)
                special["pad"] = next(known, None)
    return CausalTokenizer(text, special, lowercase=lowercase)


def _named_specials(folder: Path) -> dict[str, str | None]:
    """Special tokens by tokenizer_config.json, else by special_tokens_map.json."""
    found: dict[str, str | None] = {"bos": None, "eos": None, "pad": None}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / file
        if not path.is_file():
            continue
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path} is not JSON: {error}", "get the model again") from error
        for name in found:
            value: Any = values.get(f"{name}_token")
            content = value.get("content") if isinstance(value, dict) else value
            found[name] = content if isinstance(content, str) else found[name]
    return found


def _by_transformers(files: CausalFiles) -> tuple[str, dict[str, str | None]]:
    """A tokenizer that has no tokenizer.json: of a GGUF file, or one to convert."""
    with needs_extra("index"):
        from transformers import AutoTokenizer
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(files.folder), gguf_file=files.gguf_file)
        text = tokenizer.backend_tokenizer.to_str()
    except Exception as error:  # whatever a foreign folder makes the library raise
        raise InputError(
            f"no readable tokenizer in {files.folder}: {first_line(error)}",
            "put the model's tokenizer.json beside it",
        ) from error
    names = {name: getattr(tokenizer, f"{name}_token", None) for name in ("bos", "eos", "pad")}
    return str(text), names
