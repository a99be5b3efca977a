"""What a folder of shards holds and how it was made: ``journal.jsonl`` and ``manifest.json``.

The journal gets a line after every finished shard, so a job that was killed goes on behind the
last one. The manifest is written at the end; a folder that has one is complete.
"""

from __future__ import annotations

import os
from pathlib import Path

from steelyard.encoders.pack.files import sha256_of
from steelyard.encoders.pack.spaces import short_hash
from steelyard.encoders.whole_file import whole_file
from steelyard.errors import InputError, needs_extra

with needs_extra("index"):
    from pydantic import BaseModel, ConfigDict, ValidationError

MANIFEST = "manifest.json"
JOURNAL = "journal.jsonl"
REJECTED = "rejected.jsonl"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EncodingPlan(_Strict):
    """Everything that decides what the shards will hold, byte for byte."""

    format: int = 1
    corpus_sha256: str
    corpus_lines: int
    dense_space: str
    sparse_space: str
    vocabulary_size: int
    dims: int
    precision: str
    shard_documents: int
    batch_tokens: int
    fields: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """Short hash; folders in the cache are named by it."""
        return short_hash(self.model_dump())


class RejectedDocument(_Strict):
    """A record that did not become a document; ``file`` is empty when the corpus is one file."""

    line: int
    id: str | None
    reason: str
    file: str = ""


class ShardEntry(_Strict):
    """One finished shard: where it ends in the corpus, and its checksum."""

    name: str
    documents: int
    last_line: int
    bytes: int
    sha256: str
    rejected: list[RejectedDocument]


class Manifest(_Strict):
    """A complete folder: read = encoded + rejected."""

    plan: EncodingPlan
    shards: list[ShardEntry]
    read: int
    encoded: int
    rejected: int

    @property
    def content(self) -> str:
        """Hash of the shards' checksums: what a generation is built from."""
        return short_hash([shard.sha256 for shard in self.shards])


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a complete folder; None when there is none."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(
            f"{path} is damaged: {error.error_count()} fields do not fit",
            "delete the folder and encode again",
        ) from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Declare a folder complete."""
    _write_synced(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")


def write_rejected(folder: Path, rejected: list[RejectedDocument]) -> None:
    """All rejections of a job, in the corpus' order."""
    lines = [
        entry.model_dump_json() + "\n"
        for entry in sorted(rejected, key=lambda r: (r.file, r.line))
    ]
    _write_synced(folder / REJECTED, "".join(lines))


class Journal:
    """The append-only record of finished shards of one plan.

    Args:
        folder: where the shards are.
        plan: what they will hold.

    Raises:
        InputError: the folder's shards are of another plan.
    """

    def __init__(self, folder: Path, plan: EncodingPlan) -> None:
        self._path = folder / JOURNAL
        self.finished: list[ShardEntry] = []
        if not self._path.exists():
            _write_synced(self._path, plan.model_dump_json() + "\n")
            return
        lines = self._path.read_bytes().split(b"\n")
        whole, torn = lines[:-1], lines[-1]
        try:
            found = EncodingPlan.model_validate_json(whole[0] if whole else b"")
            self.finished = [ShardEntry.model_validate_json(line) for line in whole[1:]]
        except ValidationError as error:
            raise InputError(
                f"{self._path} is damaged", "delete the folder and encode again"
            ) from error
        if found != plan:
            raise InputError(
                f"{folder} holds shards of another job (plan {found.fingerprint}, this one is "
                f"{plan.fingerprint})",
                "the corpus, the pack or a setting has changed: choose another --shards folder, "
                "or delete this one",
            )
        if torn:
            # The write of the last line was cut off: its shard is encoded again.
            _write_synced(self._path, b"\n".join([*whole, b""]).decode())

    def append(self, entry: ShardEntry) -> None:
        """Record a shard that is safely on disk."""
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(entry.model_dump_json() + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.finished.append(entry)


def check_shard(folder: Path, entry: ShardEntry) -> None:
    """Compare a shard with its checksum.

    Raises:
        InputError: it is missing or damaged.
    """
    path = folder / entry.name
    if not path.is_file() or path.stat().st_size != entry.bytes or sha256_of(path) != entry.sha256:
        raise InputError(f"{path} is missing or damaged", "delete the folder and encode again")


def _write_synced(path: Path, text: str) -> None:
    with whole_file(path) as stream:
        stream.write(text.encode())
