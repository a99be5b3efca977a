"""Small random causal language models, written to folders as real ones are."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tests.conftest import scifact_lines

SPECIALS = ["<unk>", "<s>", "</s>"]
FAMILIES = ("llama", "llama3-rope", "qwen3", "mistral", "gemma2")
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
HIDDEN = 32
SPARE_ROWS = 5


def _texts() -> list[str]:
    return [line["text"] for line in scifact_lines(40)]


def sentencepiece_like() -> Tokenizer:
    """Llama 2's kind: spaces become a letter, unknown characters bytes."""
    return Tokenizer.from_str(_sentencepiece_like())


@functools.cache
def _sentencepiece_like() -> str:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))  # noqa: S106
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.ByteFallback()
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=[*SPECIALS, *bytes_], show_progress=False
    )
    tokenizer.train_from_iterator((text[:300] for text in _texts()), trainer)
    value = json.loads(tokenizer.to_str())
    value["added_tokens"] = [t for t in value["added_tokens"] if t["content"] in SPECIALS]
    return json.dumps(value)


def byte_level() -> Tokenizer:
    """Qwen's kind, without any special token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return tokenizer


def write_tokenizer(folder: Path, tokenizer: Tokenizer, **special: str | None) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {f"{name}_token": token for name, token in special.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps(named), encoding="utf-8")


def write_model(folder: Path, family: str = "llama", **changes: Any) -> Path:
    """A model folder; ``changes`` are of transformers' configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = sentencepiece_like()
    settings: dict[str, Any] = {
        "vocab_size": tokenizer.get_vocab_size() + SPARE_ROWS,
        "hidden_size": HIDDEN,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "initializer_range": 0.2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
        **changes,
    }
    if family == "llama3-rope":
        family, settings["rope_parameters"] = "llama", LLAMA3_ROPE
    config = transformers.AutoConfig.for_model(family, **settings)
    torch.manual_seed(3)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    write_tokenizer(folder, tokenizer, bos="<s>", eos="</s>", pad=None)
    return folder
