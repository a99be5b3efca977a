"""Hugging Face data sets, ``hf:folder-or-name?split=train``: read from disk, a few rows a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from steelyard.errors import InputError, first_line, needs_extra
from steelyard.indexer.reading.arrow_rows import BATCH_ROWS, batch_rows, wanted_columns
from steelyard.indexer.reading.mapping import FieldMapping
from steelyard.indexer.reading.parts import Row

PREFIX = "hf:"
_SETTINGS = ("split", "config", "revision")


class HuggingFacePart:
    """One split of a data set.

    Args:
        source: ``hf:`` and a folder made by ``save_to_disk``, or a name on the Hub; then ``?`` and
            ``split``, ``config``, ``revision``.
        mapping: which columns.

    Raises:
        InputError: no such data set, or it has several splits and none is named.
        MissingExtraError: ``datasets`` is not installed.
    """

    format, untyped, name = "hugging-face", False, ""

    def __init__(self, source: str, mapping: FieldMapping) -> None:
        self.source = source
        self._mapping = mapping
        self._data = _opened(source)
        if not self._data.cache_files:
            raise InputError(f"{source} is not on disk", "save it with save_to_disk first")
        self.files: Sequence[Path] = sorted(
            Path(entry["filename"]) for entry in self._data.cache_files
        )
        mapping.check_columns(list(self._data.column_names), source)

    def count(self) -> int:
        """See ``Part``."""
        return int(self._data.num_rows)

    def rows(self, fields: Mapping[str, str] | None = None) -> Iterator[Row]:
        """See ``Part``."""
        columns = wanted_columns(list(self._data.column_names), self._mapping, fields)
        number = 1
        for table in self._data.select_columns(columns).with_format("arrow").iter(BATCH_ROWS):
            for batch in table.to_batches():
                yield from batch_rows(batch, number)
                number += batch.num_rows


def _opened(source: str) -> Any:
    with needs_extra("datasets"):
        import datasets
    where, _, query = source.removeprefix(PREFIX).partition("?")
    settings = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(settings) - set(_SETTINGS))
    if unknown or not where:
        raise InputError(
            f"cannot read {source!r}", f"hf:NAME_OR_FOLDER?split=train; {', '.join(_SETTINGS)}"
        )
    split = settings.get("split")
    folder = Path(where).expanduser()
    try:
        if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
            found = datasets.load_from_disk(str(folder))
        else:
            found = datasets.load_dataset(
                where, settings.get("config"), split=split, revision=settings.get("revision")
            )
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
        raise InputError(
            f"{source} cannot be opened: {first_line(error)}", "check its name, split and config"
        ) from error
    if not isinstance(found, dict):
        return found
    if split is None and len(found) == 1:
        return next(iter(found.values()))
    if split not in found:
        raise InputError(
            f"{source} has the splits {', '.join(map(str, found))}", "choose one: ?split=NAME"
        )
    return found[split]
