"""What a tower's graph and tokenizer cannot tell: ``steelyard_tower.json``.

A person may write it too::

    {"format": 1,                  always 1
     "pooling": "cls",             cls, mean, last or model
     "prompts": {"query": "..."},  put before a "document" or a "query"; one left out is empty
     "max_length": 512,            tokens, special tokens included; may be left out
     "source": "...",              where the model came from; may be left out
     "export": {}}                 how it was exported; may be left out
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from steelyard.encoders.json_object import read_json
from steelyard.encoders.pack.json_fields import read_dataclass
from steelyard.errors import InputError, PackError

SETTINGS = "steelyard_tower.json"
FORMAT = 1
POOLINGS = ("cls", "mean", "last", "model")
PROMPTS = ("document", "query")


@dataclass(frozen=True, slots=True)
class TowerSettings:
    """What ``steelyard_tower.json`` holds; see the module's docstring."""

    pooling: str
    prompts: dict[str, str] = field(default_factory=dict)
    max_length: int | None = None
    source: str = ""
    export: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def check(self, where: str) -> None:
        """Raise an InputError that names the field which cannot be used."""
        if self.format != FORMAT:
            raise InputError(f"{where}: tower format {self.format}", f"known is {FORMAT}")
        for what, found, known in (
            ("pooling", {self.pooling}, POOLINGS),
            ("prompt", set(self.prompts), PROMPTS),
        ):
            if unknown := sorted(found - set(known)):
                message = f"{where}: unknown {what} {unknown[0]!r}"
                raise InputError(message, f"known: {', '.join(known)}")
        if self.max_length is not None and self.max_length < 1:
            raise InputError(f"{where}: max_length {self.max_length}", "a text has tokens")


def read_settings(folder: Path) -> TowerSettings | None:
    """``steelyard_tower.json``, None where there is none; an InputError where it is damaged."""
    path = folder / SETTINGS
    if not path.is_file():
        return None
    try:
        settings = read_dataclass(TowerSettings, {"format": 0, **read_json(path)}, str(path))
    except PackError as error:
        raise InputError(error.message, "correct the file or export the tower again") from error
    settings.check(str(path))
    return settings


def write_settings(folder: Path, settings: TowerSettings) -> None:
    """Write ``steelyard_tower.json`` into a tower's folder."""
    text = json.dumps(asdict(settings), indent=2, allow_nan=False)
    (folder / SETTINGS).write_text(text + "\n", encoding="utf-8")
