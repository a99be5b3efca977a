"""Documents of ``ir_datasets``, ``ir_datasets:beir/scifact``: copied into the cache as JSON Lines.

The package downloads, unpacks and parses what it knows, in many ways; a file of our own is what
can be hashed, counted and read again when a job continues.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from steelyard.config import cache_dir
from steelyard.errors import InputError, SteelyardError, first_line, needs_extra

IR_DATASETS = "ir_datasets:"
EXTRA = "ir-datasets"


def open_ir_dataset(source: str, what: str) -> Any:
    """A data set of the package.

    Args:
        source: ``ir_datasets:`` and an id.
        what: that it must have: ``docs``, ``queries`` or ``qrels``.

    Raises:
        InputError: no data set of that id, or it has none of those.
        MissingExtraError: the package is not installed.
    """
    with needs_extra(EXTRA):
        import ir_datasets
    identifier = source.removeprefix(IR_DATASETS)
    try:
        found = ir_datasets.load(identifier)
    except KeyError as error:
        raise InputError(
            f"ir_datasets knows no {identifier!r}", "see https://ir-datasets.com for the ids"
        ) from error
    if not found.has(what):
        raise InputError(f"{source} has no {what}", _with(ir_datasets, identifier, what))
    return found


def _with(package: Any, identifier: str, what: str) -> str:
    """Those below this id that have them: of ``beir/scifact``, ``beir/scifact/test``."""
    below = [name for name in package.registry if name.startswith(f"{identifier}/")]
    known = sorted(name for name in below if package.load(name).has(what))
    return f"these have them: {', '.join(known[:10])}" if known else "choose another"


@contextmanager
def reading(source: str) -> Iterator[None]:
    """Turn whatever the package raises while it downloads and parses into one clear error."""
    try:
        yield
    except (SteelyardError, KeyboardInterrupt):
        raise
    except Exception as error:  # many formats, many libraries
        raise InputError(
            f"{source} cannot be read: {first_line(error)}",
            "look whether the data set can be downloaded here, or needs to be asked for",
        ) from error


def spool_documents(source: str) -> Path:
    """Copy a data set's documents to ``ir_datasets/<sha256>.jsonl`` in the cache.

    The same documents find the same file. A document is its fields, its id as ``_id``; where it
    has no ``text`` that is the package's ``default_text()``, which holds the title too.

    Raises:
        InputError: no such documents, or they cannot be kept.
    """
    documents = open_ir_dataset(source, "docs")
    folder = cache_dir() / "ir_datasets"
    digest, temporary = sha256(), None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", delete=False) as kept:
            temporary = Path(kept.name)
            with reading(source):
                lines = (_line(document) for document in documents.docs_iter())
                for line in lines:
                    digest.update(line)
                    kept.write(line)
        path = folder / f"{digest.hexdigest()}.jsonl"
        if not path.exists():
            temporary.replace(path)
        return path
    except OSError as error:
        raise InputError(
            f"{source} cannot be kept in {folder}: {first_line(error)}",
            "make room, or set STEELYARD_CACHE to a folder that can be written",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _line(document: Any) -> bytes:
    fields = {name: value for name, value in document._asdict().items() if _is_json(value)}
    value = {"_id": fields.pop("doc_id"), **fields}
    if not isinstance(value.get("text"), str):
        value["text"] = document.default_text()
        value.pop("title", None)
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _is_json(value: Any) -> bool:
    """Whether a field may be metadata; raw pages in bytes and nested objects are left out."""
    return isinstance(value, (str, int, float)) or (
        isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)
    )
