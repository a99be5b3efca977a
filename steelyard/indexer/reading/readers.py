"""The way in: a file, a folder, a glob, standard input or a Hugging Face data set as a corpus."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

from steelyard.errors import InputError
from steelyard.indexer.reading.corpus import Corpus
from steelyard.indexer.reading.formats import FORMATS, check_format, format_of, open_part
from steelyard.indexer.reading.ir_datasets_source import IR_DATASETS, spool_documents
from steelyard.indexer.reading.mapping import FieldMapping
from steelyard.indexer.reading.spool import spool_input

STDIN = "-"
HUGGING_FACE = "hf:"
_BEIR = ("corpus.jsonl", "corpus.jsonl.gz", "corpus.jsonl.zst")
_SAVED = ("state.json", "dataset_dict.json")
_WAYS = "give a file, a folder, a glob, hf:NAME, ir_datasets:ID or - for standard input"


def open_corpus(
    source: str | Path, mapping: FieldMapping | None = None, format: str | None = None
) -> Corpus:
    """Find the files of a corpus; they are read later.

    Args:
        source: a BEIR folder (of which ``corpus.jsonl`` is read); a file, ``.gz`` and ``.zst``
            too; a folder or a glob, whose files are read in order of their names; ``hf:NAME``;
            ``ir_datasets:ID``; or ``-``, standard input. The last two are copied into the cache
            at once.
        mapping: which fields of a record make a document.
        format: of the files; None goes by their names.

    Raises:
        InputError: nothing there to read, or of no known format.
    """
    check_format(format)
    mapping, text, path = mapping or FieldMapping(), str(source), Path(source)
    if text.startswith(HUGGING_FACE):
        from steelyard.indexer.reading.hugging_face_part import HuggingFacePart

        return Corpus(path, [HuggingFacePart(text, mapping)], mapping)
    if text.startswith(IR_DATASETS):
        part = open_part(spool_documents(text), "", "jsonl", mapping)
        return Corpus(Path(text.removeprefix(IR_DATASETS)), [part], mapping)
    if text == STDIN:
        return _one_file(spool_input(format), mapping, format)
    path = path.expanduser()
    if path.is_dir():
        beir = next((path / name for name in _BEIR if (path / name).is_file()), None)
        if beir is not None and format in (None, "jsonl"):
            return Corpus(path, [open_part(beir, "", "jsonl", mapping)], mapping)
        return _folder(path, mapping, format)
    if path.is_file():
        return _one_file(path, mapping, format)
    if glob.has_magic(text):
        return _glob(path, mapping, format)
    raise InputError(f"no corpus at {path}", _WAYS)


def _one_file(path: Path, mapping: FieldMapping, format: str | None) -> Corpus:
    found = format or format_of(path)
    if found is None:
        raise _unknown(path)
    return Corpus(path, [open_part(path, "", found, mapping)], mapping)


def _folder(path: Path, mapping: FieldMapping, format: str | None) -> Corpus:
    if any((path / name).is_file() for name in _SAVED):
        raise InputError(f"{path} is a saved Hugging Face data set", f"write hf:{path}")
    files = [
        file
        for file in path.rglob("*")
        if file.is_file() and not _hidden(file.relative_to(path)) and _fits(file, format)
    ]
    if not files:
        raise InputError(
            f"{path} holds no corpus",
            f"its files must be of a known format: {', '.join(FORMATS)}; .gz and .zst too",
        )
    return _many(path, path, files, mapping, None)


def _glob(path: Path, mapping: FieldMapping, format: str | None) -> Corpus:
    base = Path(*_before_magic(path))
    files = [file for file in base.glob(str(path.relative_to(base))) if file.is_file()]
    if not files:
        raise InputError(f"no file fits {path}", _WAYS)
    return _many(path, base, files, mapping, format)


def _many(
    path: Path, base: Path, files: Iterable[Path], mapping: FieldMapping, format: str | None
) -> Corpus:
    parts = []
    named = sorted((file.relative_to(base).as_posix(), file) for file in files)
    for name, file in named:
        found = format or format_of(file)
        if found is None:
            raise _unknown(file)
        parts.append(open_part(file, "" if len(named) == 1 else name, found, mapping))
    return Corpus(path, parts, mapping)


def _before_magic(path: Path) -> list[str]:
    """The parts of a glob up to the first that is none of a fixed name."""
    parts: list[str] = []
    for part in path.parts:
        if glob.has_magic(part):
            break
        parts.append(part)
    return parts


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _fits(path: Path, format: str | None) -> bool:
    found = format_of(path)
    return found is not None and format in (None, found)


def _unknown(path: Path) -> InputError:
    return InputError(
        f"the format of {path} is not in its name", f"say --format: {', '.join(FORMATS)}"
    )
