"""Lucene as an engine: a folder a generation, the alias a small file. For evaluation.

The sparse arm is an impact index that Pyserini opens as it is, the dense arm a file of vectors
that are compared with every query. What is written after a seal is seen after the next one,
which writes the whole generation anew.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from steelyard.encoders.folder_lock import locked_file
from steelyard.errors import EngineError, InputError
from steelyard.plugin.batch_check import check_batch
from steelyard.plugin.engine import SPARSE, Generation, UpsertReport
from steelyard.plugin.local_files import file_errors, fsync_folder
from steelyard.plugin.lucene import build
from steelyard.plugin.lucene.folder import PARTS, LuceneFolder
from steelyard.plugin.lucene.index import LuceneIndex
from steelyard.plugin.lucene.jvm import requirements
from steelyard.plugin.quantise import quantise
from steelyard.plugin.urls import EngineUrl
from steelyard.plugin.vocabulary import Vocabulary
from steelyard.types import EncodedDocuments, SparseVectors

_GOING = ".going."


def open_lucene(
    url: EngineUrl, must_exist: bool, vocabulary: Vocabulary | None = None
) -> LuceneEngine:
    """The engine of ``lucene:///path/folder?name=NAME``.

    Raises:
        InputError: the URL names a host or no folder, or the folder is something else.
        EngineError: the folder is not there, and ``must_exist``.
        MissingExtraError: Pyserini is not installed.
        MissingProgramError: there is no Java 21 or newer.
    """
    del vocabulary  # terms are numbers here
    if url.host or not url.path.strip("/"):
        raise InputError(
            f"lucene is a folder here, not {url.host or url.path!r}",
            "write lucene:///absolute/folder?name=NAME or lucene:relative/folder?name=NAME",
        )
    return LuceneEngine(Path(url.path), url.alias, must_exist=must_exist)


class LuceneEngine:
    """One alias in one folder.

    The first call that writes makes the folder and takes the alias's lock, until ``close``.

    Args:
        path: the folder.
        alias: the name that users search.
        must_exist: for readers: a folder that is not there is an error.
    """

    def __init__(self, path: Path, alias: str, *, must_exist: bool = False) -> None:
        # What is missing is told before hours of encoding.
        requirements()
        self._folder = LuceneFolder(path, alias)
        self._folder.check(must_exist=must_exist)
        self._held = ExitStack()
        self._writes = False
        self._lock = threading.RLock()

    @property
    def alias(self) -> str:
        """The name that users search."""
        return self._folder.alias

    @property
    def where(self) -> str:
        """The folder."""
        return str(self._folder.path)

    def resolve(self) -> Generation | None:
        """The generation that the alias stands for."""
        name = self._folder.read_alias()
        return None if name is None else self._folder.read(name)

    def generations(self) -> list[Generation]:
        """All generations of this alias, newest first."""
        return [self._folder.read(name) for name in self._folder.names()]

    def create(self, generation: Generation) -> None:
        """Make an empty generation.

        Raises:
            EngineError: there is one of that name, or the folder cannot be written.
            InputError: another process writes to this alias.
        """
        path = self._folder.generation(generation.name)
        with self._lock:
            self._write()
            if path.exists():
                raise EngineError(f"{generation.name} exists already in {path.parent}")
            with file_errors(f"create {generation.name}"):
                (path / PARTS).mkdir(parents=True)
                self._folder.describe(generation)

    def upsert(
        self, generation: Generation, batch: EncodedDocuments, *, report_refused: bool = False
    ) -> UpsertReport:
        """Note whole documents for the next seal; nothing that passes the check is refused."""
        del report_refused
        name = generation.name
        check_batch(generation, batch)
        impacts, clipped = quantise(batch.sparse, generation.scale)
        if SPARSE not in generation.arms:
            empty = [(impacts.ids[:0], impacts.weights[:0])] * len(batch)
            impacts, clipped = SparseVectors.from_rows(empty, generation.vocabulary_size), 0
        content = EncodedDocuments(batch.documents, batch.dense, impacts)
        with self._lock:
            path = self._existing(generation)
            with file_errors(f"write to {name}"):
                build.add_documents(path, generation, content)
        return UpsertReport(clipped)

    def delete(self, generation: Generation, ids: Sequence[str]) -> None:
        """Note deletions for the next seal."""
        with self._lock:
            path = self._existing(generation)
            with file_errors(f"delete documents of {generation.name}"):
                build.add_deletions(path, ids)

    def seal(self, generation: Generation) -> None:
        """Build what readers see of everything written so far; nothing new is no work."""
        with self._lock:
            path = self._existing(generation)
            with file_errors(f"seal {generation.name}"):
                build.seal(path, generation)

    def publish(self, generation: Generation) -> None:
        """Point the alias to a generation, by replacing one small file."""
        with self._lock:
            if build.current_build(self._existing(generation)) is None:
                raise EngineError(f"{generation.name} was never sealed", "seal it first")
            self._folder.write_alias(generation.name)

    def drop(self, generation: Generation) -> None:
        """Remove a generation.

        Raises:
            EngineError: the alias stands for it.
        """
        path = self._folder.generation(generation.name)
        with self._lock:
            self._write()
            if self._folder.read_alias() == generation.name:
                raise EngineError(
                    f"{generation.name} is what {self.alias} stands for, so it stays"
                )
            with file_errors(f"drop {generation.name}"):
                if path.exists():
                    # Gone in one step; removing the files may take a while, or be killed.
                    path.rename(path.with_name(f"{_GOING}{path.name}"))
                self._sweep()

    def open(self, generation: Generation, vocabulary: Vocabulary | None = None) -> LuceneIndex:
        """A generation for reading.

        Raises:
            EngineError: it is gone, or was never sealed.
        """
        del vocabulary  # terms are numbers here
        found = self._folder.read(generation.name)
        return LuceneIndex(self._folder.generation(found.name), found)

    def close(self) -> None:
        """Let go of the lock."""
        with self._lock:
            self._held.close()
            self._writes = False

    def _write(self) -> None:
        """Hold the alias's lock from here on."""
        if self._writes:
            return
        self._folder.make()
        try:
            with file_errors(f"lock {self._folder.path}"):
                self._held.enter_context(locked_file(self._folder.lock, wait=False))
        except EngineError as error:
            if isinstance(error.__cause__, BlockingIOError):
                raise InputError(
                    f"another process writes to {self.alias} in {self._folder.path}", "wait for it"
                ) from error
            raise
        self._writes = True

    def _existing(self, generation: Generation) -> Path:
        """The folder of a generation that is there, ready for writing."""
        self._write()
        self._folder.read(generation.name)
        return self._folder.generation(generation.name)

    def _sweep(self) -> None:
        for left in self._folder.path.glob(f"{_GOING}{self.alias}_*"):
            shutil.rmtree(left, ignore_errors=True)
        fsync_folder(self._folder.path)
