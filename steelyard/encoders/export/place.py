"""Where an export may go: to a free place, or over an older export."""

from __future__ import annotations

from pathlib import Path

from steelyard.errors import InputError

EXPORT_JSON = "export.json"


def refuse_taken(out: Path, overwrite: bool) -> None:
    """Raise an InputError if an export cannot be written here."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out.is_dir() and (out / EXPORT_JSON).is_file()):
        raise InputError(f"{out} exists and is not an export", "choose another place")
    if not overwrite:
        raise InputError(f"{out} already holds an export", "add --overwrite to replace it")
