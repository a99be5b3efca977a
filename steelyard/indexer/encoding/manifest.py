"""What a folder of shards holds and how it was made: ``journal.jsonl`` and ``manifest.json``.

The journal gets a line after every finished shard, so a job that was killed goes on behind the
last one. The manifest is written at the end; a folder that has one is complete.
"""

from __future__ import annotations

from pathlib import Path

from steelyard.encoders.pack.files import sha256_of
from steelyard.encoders.pack.spaces import short_hash
from steelyard.errors import InputError, needs_extra
from steelyard.indexer.encoding.append_only import append_line, read_lines, rewrite

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
    passages: str = ""

    @property
    def fingerprint(self) -> str:
        """Short hash; folders in the cache are named by it."""
        return short_hash(self.model_dump())


class RejectedDocument(_Strict):
    """A record that did not become a document; of one that an engine refused, no line is known.

    ``file`` is empty when the corpus is one file.
    """

    line: int | None
    id: str | None
    reason: str
    file: str = ""
    engine: str | None = None


class ShardEntry(_Strict):
    """One finished shard: where it ends in the corpus, and its checksum.

    Attributes:
        name: of its file.
        number: its place, from 0.
        documents: rows: documents, or passages of split ones.
        wholes: documents before splitting.
        last_file, last_line: place of its last document.
        bytes, sha256: of the file.
        rejected: documents of this span that could not be encoded.
    """

    name: str
    number: int
    documents: int
    wholes: int
    last_file: str = ""
    last_line: int
    bytes: int
    sha256: str
    rejected: list[RejectedDocument]


class Manifest(_Strict):
    """A complete folder: read = wholes + rejected.

    Attributes:
        plan: what was to be made.
        shards: in order.
        read: lines of the corpus.
        wholes: documents that were encoded.
        corpus_modified: when its newest file was changed, ISO 8601.
        encoded: rows of the shards: as many, or more where documents were split into passages.
        rejected: lines that are in no shard.
    """

    plan: EncodingPlan
    shards: list[ShardEntry]
    read: int
    wholes: int
    encoded: int
    rejected: int
    corpus_modified: str


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
    rewrite(folder / MANIFEST, [manifest.model_dump_json(indent=2).encode()])


class Journal:
    """The append-only record of finished shards of one plan.

    Args:
        folder: where the shards are.
        plan: what they will hold.

    Attributes:
        finished: entries by number of the shard.

    Raises:
        InputError: the folder's shards are of another plan.
    """

    def __init__(self, folder: Path, plan: EncodingPlan) -> None:
        self._path = folder / JOURNAL
        self.finished: dict[int, ShardEntry] = {}
        lines = read_lines(self._path)
        if not lines:
            rewrite(self._path, [plan.model_dump_json().encode()])
            return
        try:
            found = EncodingPlan.model_validate_json(lines[0])
            entries = [ShardEntry.model_validate_json(line) for line in lines[1:]]
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
        # A shard that was encoded again has two entries: the later one is right.
        self.finished = {entry.number: entry for entry in entries}

    def append(self, entry: ShardEntry) -> None:
        """Record a shard that is safely on disk."""
        append_line(self._path, entry.model_dump_json())
        self.finished[entry.number] = entry

    @property
    def entries(self) -> list[ShardEntry]:
        """All, in order."""
        return [self.finished[number] for number in sorted(self.finished)]


class DamagedShardError(InputError):
    """A shard that is not what the journal says.

    Attributes:
        entry: its.
    """

    def __init__(self, folder: Path, entry: ShardEntry) -> None:
        super().__init__(
            f"{folder / entry.name} is missing or damaged",
            "'steelyard index' or 'encode-documents' with the same corpus encodes it again",
        )
        self.entry = entry


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"shard-{number:05d}.parquet"


def check_shard(folder: Path, entry: ShardEntry) -> None:
    """Compare a shard with its checksum.

    Raises:
        DamagedShardError: it is missing or damaged.
    """
    if not has_size(folder, entry) or sha256_of(folder / entry.name) != entry.sha256:
        raise DamagedShardError(folder, entry)


def has_size(folder: Path, entry: ShardEntry) -> bool:
    """Whether a shard is there and has its size: all that can be told without reading it."""
    path = folder / entry.name
    return path.is_file() and path.stat().st_size == entry.bytes
