"""Where things are in a Lucene folder.

::

    steelyard.json              says that the folder is ours
    NAME.alias.json             the generation that the alias stands for
    .NAME.lock                  held by the one writer of NAME
    NAME_<time>_<hash>/
        generation.json         description with its checksum
        parts/                  what was written since the last seal, in order
        current -> build-1      the last seal; moved in one step
        build-1/
            documents.arrow     ids, texts, metadata, impacts, by row
            dense.npy           float32 [n, d]
            lucene/             the impact index; document i is row i
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from steelyard.encoders.json_object import read_json
from steelyard.encoders.whole_file import whole_file
from steelyard.errors import EngineError, InputError
from steelyard.plugin.engine import Generation, generation_names
from steelyard.plugin.local_files import file_errors, fsync_folder

MARKER = "steelyard.json"
DESCRIPTION = "generation.json"
PARTS = "parts"
CURRENT = "current"
BUILD = "build-"
DOCUMENTS, DENSE, LUCENE = "documents.arrow", "dense.npy", "lucene"

_KIND = {"kind": "lucene", "format": 1}


class LuceneFolder:
    """One alias in a folder.

    Args:
        path: the folder.
        alias: the name that users search.
    """

    def __init__(self, path: Path, alias: str) -> None:
        self.path, self.alias = path, alias
        self._names = generation_names(alias)

    def check(self, *, must_exist: bool) -> None:
        """See that the folder is ours, or may become it.

        Raises:
            InputError: it is something else.
            EngineError: it is not there, and ``must_exist``.
        """
        with file_errors(f"look at {self.path}"):
            found = read_json(self.path / MARKER)
            if found:
                if found != _KIND:
                    raise InputError(
                        f"{self.path} is marked {found}, this version writes {_KIND}",
                        "choose another folder, or upgrade Steelyard",
                    )
                return
            if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
                raise InputError(
                    f"{self.path} exists and is not a Lucene folder of Steelyard",
                    "choose another place",
                )
        if must_exist:
            raise EngineError(
                f"no Lucene folder at {self.path}", "make one with 'steelyard index'"
            )

    def make(self) -> None:
        """Make the folder, or see that it is ours."""
        self.check(must_exist=False)
        with file_errors(f"make {self.path}"):
            self.path.mkdir(parents=True, exist_ok=True)
            if not (self.path / MARKER).exists():
                _write_json(self.path / MARKER, _KIND)

    @property
    def lock(self) -> Path:
        """The lock of the alias's writer."""
        return self.path / f".{self.alias}.lock"

    def generation(self, name: str) -> Path:
        """The folder of a generation; a name goes into a path, so nothing else may."""
        if not self._names.fullmatch(name):
            raise EngineError(
                f"{name!r} is no generation of {self.alias!r}",
                "generations are called <alias>_<utc time>_<hash>",
            )
        return self.path / name

    def names(self) -> list[str]:
        """The generations that are there, newest first."""
        with file_errors(f"list {self.path}"):
            if not self.path.is_dir():
                return []
            found = [entry.name for entry in self.path.iterdir() if entry.is_dir()]
        return sorted(filter(self._names.fullmatch, found), reverse=True)

    def describe(self, generation: Generation) -> None:
        """Write a generation's description."""
        text = generation.to_json()
        _write_json(
            self.generation(generation.name) / DESCRIPTION,
            {"generation": text, "sha256": _checksum(text)},
        )

    def read(self, name: str) -> Generation:
        """A generation's description.

        Raises:
            EngineError: it is gone, or damaged.
        """
        path = self.generation(name) / DESCRIPTION
        if not path.is_file():
            raise EngineError(f"{name} is not in {self.path}", "it was dropped: resolve again")
        with file_errors(f"read {path}"):
            found = read_json(path)
        text = str(found.get("generation"))
        if found.get("sha256") != _checksum(text):
            raise EngineError(f"{path} is damaged: its checksum does not fit", "index again")
        return Generation.from_json(text, str(path))

    def read_alias(self) -> str | None:
        """The name of the generation that the alias stands for."""
        path = self._alias_file()
        with file_errors(f"read {path}"):
            found = read_json(path)
        if not found:
            return None
        name = found.get("generation")
        if not isinstance(name, str):
            raise EngineError(f"{path} names no generation", "index the corpus again")
        return name

    def write_alias(self, name: str) -> None:
        """Point the alias to a generation, in one step."""
        with file_errors(f"point {self.alias} to {name}"):
            _write_json(self._alias_file(), {"generation": name})
            fsync_folder(self.path)

    def _alias_file(self) -> Path:
        return self.path / f"{self.alias}.alias.json"


def _write_json(path: Path, value: dict[str, object]) -> None:
    with whole_file(path) as stream:
        stream.write(json.dumps(value, sort_keys=True).encode() + b"\n")


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
