"""What a sink has done, line by line: its generation, the shards it acknowledged, the steps done.

``sinks/<hash>.jsonl`` in the shards' folder, one for each engine, alias and space.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from steelyard.encoders.pack.spaces import short_hash
from steelyard.errors import InputError, needs_extra
from steelyard.indexer.encoding.append_only import append_line, read_lines, rewrite
from steelyard.indexer.encoding.manifest import RejectedDocument, ShardEntry
from steelyard.indexer.encoding.storage import storing
from steelyard.plugin.engine import Generation, Refused

with needs_extra("index"):
    from pydantic import BaseModel, ConfigDict, ValidationError

FOLDER = "sinks"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Begun(_Strict):
    sink: str
    generation: str


class Acknowledged(_Strict):
    """A shard that the engine has.

    Attributes:
        shard: its name.
        documents: rows that were sent.
        clipped: weights cut to the largest impact.
        refused: rows that the engine did not take.
        refused_bytes: length of the file of refusals after this shard.
    """

    shard: str
    documents: int
    clipped: int
    refused: int
    refused_bytes: int


class _Done(_Strict):
    step: str


class SinkJournal:
    """The record of one sink. It is read from the file, and every change is written at once.

    Args:
        folder: of the shards.
        sink: the engine's URL.
        spaces: of the documents' vectors.

    Attributes:
        path: the file; ``.rejected.jsonl`` beside it has what the engine refused.
        generation: that is filled; None: none was begun.
        acknowledged: by name of the shard.
        steps: that are done.
    """

    def __init__(self, folder: Path, sink: str, spaces: tuple[str, str]) -> None:
        name = short_hash([sink, *spaces])
        self.sink = sink
        self.path = folder / FOLDER / f"{name}.jsonl"
        self.refused_path = folder / FOLDER / f"{name}.rejected.jsonl"
        self.lock_path = folder / FOLDER / f".{name}.lock"
        self.generation: Generation | None = None
        self.acknowledged: dict[str, Acknowledged] = {}
        self.steps: list[str] = []
        with storing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)

    def read(self) -> None:
        """Take in what the file says; the caller holds the sink's lock.

        Raises:
            InputError: it is damaged.
        """
        self.generation, self.acknowledged, self.steps = None, {}, []
        lines = read_lines(self.path)
        if not lines:
            return
        try:
            begun = _Begun.model_validate_json(lines[0])
            self.generation = Generation.from_json(begun.generation, str(self.path))
            for line in lines[1:]:
                if line.startswith(b'{"step"'):
                    self.steps.append(_Done.model_validate_json(line).step)
                else:
                    one = Acknowledged.model_validate_json(line)
                    self.acknowledged[one.shard] = one
        except ValidationError as error:
            raise InputError(
                f"{self.path} is damaged", "delete it: the engine is then loaded from the start"
            ) from error
        self._cut_refused(
            max((one.refused_bytes for one in self.acknowledged.values()), default=0)
        )

    def begin(self, generation: Generation) -> None:
        """A new generation; written before it is made, so that none is ever forgotten."""
        self.acknowledged, self.steps = {}, []
        self._cut_refused(0)
        begun = _Begun(sink=self.sink, generation=generation.to_json())
        rewrite(self.path, [begun.model_dump_json().encode()])
        self.generation = generation

    def acknowledge(self, entry: ShardEntry, clipped: int, refused: tuple[Refused, ...]) -> None:
        """The engine has this shard."""
        with storing(self.refused_path):
            for one in refused:
                rejected = RejectedDocument(
                    line=None, id=one.id, reason=one.reason, engine=self.sink
                )
                append_line(self.refused_path, rejected.model_dump_json())
        done = Acknowledged(
            shard=entry.name,
            documents=entry.documents,
            clipped=clipped,
            refused=len(refused),
            refused_bytes=self.refused_path.stat().st_size if self.refused_path.exists() else 0,
        )
        append_line(self.path, done.model_dump_json())
        self.acknowledged[entry.name] = done

    def done(self, step: str) -> None:
        """A step behind the last shard is done."""
        append_line(self.path, _Done(step=step).model_dump_json())
        self.steps.append(step)

    def forget(self) -> None:
        """There is nothing to go on with."""
        with storing(self.path):
            self.refused_path.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
        self.generation, self.acknowledged, self.steps = None, {}, []

    @property
    def refused(self) -> int:
        """Rows that the engine did not take."""
        return sum(one.refused for one in self.acknowledged.values())

    def refused_ids(self, among: Collection[str]) -> set[str]:
        """Of the rows that the engine did not take, those of these ids: all may be many."""
        if not self.refused_path.exists():
            return set()
        with self.refused_path.open("rb") as lines:
            ids = (str(RejectedDocument.model_validate_json(line).id) for line in lines)
            return {identifier for identifier in ids if identifier in among}

    @property
    def clipped(self) -> int:
        """Weights that were cut."""
        return sum(one.clipped for one in self.acknowledged.values())

    def _cut_refused(self, length: int) -> None:
        """Forget refusals of a shard that was not acknowledged: it is sent again."""
        with storing(self.refused_path):
            if self.refused_path.exists() and self.refused_path.stat().st_size > length:
                with self.refused_path.open("r+b") as stream:
                    stream.truncate(length)
