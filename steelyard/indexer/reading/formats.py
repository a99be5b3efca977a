"""Formats and the files that have them."""

from __future__ import annotations

from pathlib import Path

from steelyard.errors import InputError
from steelyard.indexer.reading.delimited_part import DelimitedPart
from steelyard.indexer.reading.json_lines_part import JsonLinesPart
from steelyard.indexer.reading.mapping import FieldMapping
from steelyard.indexer.reading.parts import Part
from steelyard.indexer.reading.streams import COMPRESSIONS, plain_name

FORMATS = ("jsonl", "csv", "tsv", "parquet")

_BY_SUFFIX = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}


def format_of(path: Path) -> str | None:
    """By the file's name; None when it tells nothing."""
    return _BY_SUFFIX.get(Path(plain_name(path.name)).suffix.lower())


def check_format(format: str | None) -> None:
    """Raise an ``InputError`` for an unknown one."""
    if format is not None and format not in FORMATS:
        raise InputError(f"unknown format {format!r}", f"choose one of {', '.join(FORMATS)}")


def open_part(path: Path, name: str, format: str, mapping: FieldMapping) -> Part:
    """A file as a sequence of rows."""
    if format == "parquet":
        if path.suffix in COMPRESSIONS:
            raise InputError(f"{path} is packed Parquet", "unpack it; Parquet packs its own pages")
        from steelyard.indexer.reading.parquet_part import ParquetPart

        return ParquetPart(path, name, mapping)
    if format == "jsonl":
        return JsonLinesPart(path, name)
    return DelimitedPart(path, name, format, mapping)
