"""Training examples on disk: a query, a text that answers it, and texts that do not.

JSON Lines, one example a line:

``{"query": "...", "positive": {"id", "title", "text"}, "negatives": [{...}], "kind": "title"}``

``id``, ``title``, ``negatives`` and ``kind`` may be missing. A positive or a negative may also be
just an id, of a document of the corpus that the reader is given. Other fields are passed over.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from steelyard.encoders.whole_file import whole_file
from steelyard.errors import InputError
from steelyard.indexer.reading.json_lines import (
    check_characters,
    read_id,
    read_object,
    read_string,
)
from steelyard.indexer.reading.streams import MAX_LINE_BYTES, TOO_LONG, read_lines
from steelyard.types import Document


@dataclass(frozen=True, slots=True)
class Passage:
    """A text that a document tower reads.

    Attributes:
        text: the body.
        title: may be empty; not both are blank.
        id: of the document it is, or is a part of; empty when it is of no corpus.
    """

    text: str
    title: str = ""
    id: str = ""

    @property
    def content(self) -> str:
        """What encoders read: as ``Document.content``."""
        return f"{self.title} {self.text}" if self.title else self.text

    @classmethod
    def of(cls, document: Document) -> Passage:
        """A whole document."""
        return cls(document.text, document.title, document.id)


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """One line.

    Attributes:
        query: not blank.
        positive: answers it.
        negatives: hard ones, hardest first; perhaps none.
        kind: where the pair comes from: a kind of ``pairs``, ``judged``, or empty.
    """

    query: str
    positive: Passage
    negatives: tuple[Passage, ...] = ()
    kind: str = ""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that gives no example.

    Attributes:
        line: counts from 1.
        reason: in a few words.
        file: its name.
    """

    line: int
    reason: str
    file: str


def passages_by_id(documents: Iterable[Document]) -> dict[str, Passage]:
    """What examples that name documents by id are read with."""
    return {document.id: Passage.of(document) for document in documents}


def read_examples(
    path: Path, documents: Mapping[str, Passage] | None = None
) -> Iterator[TrainingExample | BadLine]:
    """Examples of a JSON Lines file, ``.gz`` and ``.zst`` too, and the lines that are none.

    Args:
        path: the file. Blank lines are no lines.
        documents: by id, for examples that name a document so.

    Raises:
        InputError: no such file, or it cannot be read to its end.
    """
    if not path.is_file():
        raise InputError(f"no training examples at {path}", "give a .jsonl[.gz] file")
    for line in read_lines(path):
        if line.too_long:
            yield BadLine(line.number, TOO_LONG, path.name)
        elif line.data.strip():
            try:
                yield example_of(read_object(line.data), documents)
            except ValueError as error:
                yield BadLine(line.number, str(error), path.name)


def load_examples(
    examples: Iterable[TrainingExample | BadLine], source: object
) -> tuple[list[TrainingExample], list[BadLine]]:
    """All examples of a reader in memory, and the bad lines beside them.

    Args:
        examples: of any reader.
        source: its name in the message.

    Raises:
        InputError: not one is good.
    """
    good: list[TrainingExample] = []
    bad: list[BadLine] = []
    for found in examples:
        if isinstance(found, BadLine):
            bad.append(found)
        else:
            good.append(found)
    if not good:
        first = f": {bad[0].file}, line {bad[0].line}: {bad[0].reason}" if bad else ""
        raise InputError(
            f"{source} holds no training example, {len(bad)} bad lines{first}",
            "see docs/training-data.md for the format",
        )
    return good, bad


def example_of(
    value: Mapping[str, Any], documents: Mapping[str, Passage] | None = None
) -> TrainingExample:
    """A JSON object as an example.

    Raises:
        ValueError: what is wrong with it, in a few words.
    """
    query = read_string(value, "query")
    if "positive" not in value:
        raise ValueError("missing positive")
    positive = _passage("positive", value["positive"], documents)
    listed = value.get("negatives")
    if listed is not None and not isinstance(listed, list):
        raise ValueError(f"negatives is not a list but {type(listed).__name__}")
    negatives = tuple(
        _passage(f"negative {number}", one, documents)
        for number, one in enumerate(listed or (), start=1)
    )
    example = TrainingExample(query, positive, negatives, read_string(value, "kind"))
    check_example(example)
    return example


def check_example(example: TrainingExample) -> None:
    """Raise a ValueError for an example that cannot be stored or taught."""
    if not example.query.strip():
        raise ValueError("empty query")
    for name, text in (("query", example.query), ("kind", example.kind)):
        check_characters(name, text)
    named = [("positive", example.positive)]
    named += [(f"negative {i}", one) for i, one in enumerate(example.negatives, start=1)]
    for name, passage in named:
        if not passage.title.strip() and not passage.text.strip():
            raise ValueError(f"{name} is empty")
        for part in (passage.id, passage.title, passage.text):
            check_characters(name, part)
    if any(one.content == example.positive.content for one in example.negatives):
        raise ValueError("the positive is also a negative")


def _passage(name: str, value: Any, documents: Mapping[str, Passage] | None) -> Passage:
    if isinstance(value, str):
        if documents is None:
            raise ValueError(f"{name} is an id, {value[:80]!r}, but no corpus was given")
        if value not in documents:
            raise ValueError(f"{name}: no document {value[:80]!r} in the corpus")
        return documents[value]
    if not isinstance(value, dict):
        raise ValueError(f"{name} is neither an object nor an id but {type(value).__name__}")
    try:
        identifier = read_id(value, ("id",)) if value.get("id") not in (None, "") else ""
        return Passage(read_string(value, "text"), read_string(value, "title"), identifier)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


class _Sink(Protocol):
    def write(self, data: bytes, /) -> int: ...


class ExampleWriter:
    """Writes examples to a stream; ``writing`` opens it.

    Attributes:
        written: how many so far.
    """

    def __init__(self, stream: _Sink, negatives_by_id: bool) -> None:
        self._stream, self._by_id = stream, negatives_by_id
        self.written = 0

    def write(self, example: TrainingExample) -> None:
        """Add a line.

        Raises:
            InputError: a reader would refuse it.
        """
        try:
            check_example(example)
            line = json.dumps(self._json(example), ensure_ascii=False).encode()
            if len(line) > MAX_LINE_BYTES:
                raise ValueError(TOO_LONG)
        except ValueError as error:
            raise InputError(
                f"training example {self.written + 1}, query {example.query[:60]!r}: {error}",
                "leave it out or mend it",
            ) from error
        self._stream.write(line + b"\n")
        self.written += 1

    def _json(self, example: TrainingExample) -> dict[str, Any]:
        negatives = [
            one.id if self._by_id and one.id else _passage_json(one) for one in example.negatives
        ]
        value: dict[str, Any] = {
            "query": example.query,
            "positive": _passage_json(example.positive),
            "negatives": negatives,
        }
        return {**value, "kind": example.kind} if example.kind else value


def _passage_json(passage: Passage) -> dict[str, str]:
    value = {"id": passage.id, "title": passage.title, "text": passage.text}
    return {name: text for name, text in value.items() if text}


@contextmanager
def writing(path: Path, *, negatives_by_id: bool = False) -> Iterator[ExampleWriter]:
    """A writer of the file at ``path``, which is there whole or not at all.

    Args:
        path: ``.jsonl``, or ``.jsonl.gz`` to pack it (the same bytes for the same examples).
        negatives_by_id: a negative that has an id is written as just that.

    Raises:
        InputError: a name that would be read as something else.
    """
    if path.suffix not in (".jsonl", ".gz"):
        raise InputError(f"{path} is no name for training examples", "write .jsonl or .jsonl.gz")
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as stream:
        if path.suffix != ".gz":
            yield ExampleWriter(stream, negatives_by_id)
            return
        with gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0) as packed:
            yield ExampleWriter(packed, negatives_by_id)
