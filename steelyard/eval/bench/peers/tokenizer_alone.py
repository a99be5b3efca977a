"""The tokenizer library on the pack's tokenizer.json: token ids, nothing looked up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from steelyard.eval.bench.peers.peer import TOKEN_IDS, Opened, Setting


@dataclass(frozen=True)
class TokenizerAlone:
    """``encode_batch_fast`` and the ids taken out."""

    name: str = "tokenizer"
    title: str = "tokenizer alone"
    gives: str = TOKEN_IDS
    install: str = "pip install tokenizers"
    most: int | None = None

    def prepare(self, setting: Setting, folder: Path) -> int:
        """The pack's file."""
        del folder
        return (Path(setting.pack) / "tokenizer.json").stat().st_size

    def open(self, setting: Setting, folder: Path) -> Opened:
        """From the pack's file."""
        del folder
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(Path(setting.pack) / "tokenizer.json"))

        def many(texts: Sequence[str]) -> list[list[int]]:
            encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
            return [encoding.ids for encoding in encodings]

        return Opened(lambda text: tokenizer.encode(text, add_special_tokens=False).ids, many)
