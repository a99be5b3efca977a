"""A JSONL corpus with a share of every kind of damage, and what must come of it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

WORDS = (
    "heavy",
    "document",
    "weightless",
    "query",
    "balance",
    "beam",
    "arm",
    "light",
    "steel",
    "yard",
)

LARGE_BYTES = 10_000_000


@dataclass(frozen=True)
class ExpectedRejection:
    """A line that is no document.

    Attributes:
        line: from 1.
        id: as far as it can be known.
        reason: what the reason begins with.
    """

    line: int
    id: str | None
    reason: str


@dataclass(frozen=True)
class DamagedCorpus:
    """A file and what is in it: lines = good + rejected."""

    path: Path
    lines: int
    good: list[str]
    rejected: list[ExpectedRejection]


def document(number: int, words: int = 8) -> dict[str, str]:
    """A document that only depends on its number."""
    chance = random.Random(number)  # noqa: S311
    return {
        "_id": f"d{number}",
        "title": f"number {number}",
        "text": " ".join(chance.choices(WORDS, k=words)),
    }


Damage = Callable[[str, list[tuple[int, str]]], tuple[bytes, str | None, str]]
"""From a new id and the good lines so far: the bytes, the known id, and the reason."""


def _line(**value: object) -> bytes:
    return json.dumps(value).encode()


def _again(id: str, line: int) -> tuple[bytes, str, str]:
    return _line(_id=id, text="again"), id, f"duplicate id, first on line {line}"


DAMAGES: dict[str, Damage] = {
    "bad JSON": lambda i, _: (f'{{"_id": "{i}", "text": "cut'.encode(), None, "broken JSON"),
    "no object": lambda i, _: (json.dumps([i]).encode(), None, "not a JSON object but list"),
    "no id": lambda i, _: (_line(text=i), None, "missing id"),
    "duplicate near": lambda i, good: _again(good[-1][1], good[-1][0]),
    "duplicate far": lambda i, good: _again(good[0][1], good[0][0]),
    "empty": lambda i, _: (_line(_id=i, text=" ", title=""), i, "empty text"),
    "NUL": lambda i, _: (_line(_id=i, text="a\0b"), i, "text holds a NUL"),
    "NUL byte": lambda i, _: (f'{{"_id": "{i}", "text": "a\0b"}}'.encode(), None, "broken JSON"),
    "lone surrogate": lambda i, _: (_line(_id=i, text="\ud800"), i, "text holds a lone surrogate"),
    "wrong id": lambda i, _: (_line(_id={"x": 1}, text=i), None, "id is not a string but dict"),
    "wrong text": lambda i, _: (_line(_id=i, text=7), i, "text is not a string but int"),
    "wrong title": lambda i, _: (
        _line(_id=i, text="t", title=[1]), i, "title is not a string but list",
    ),
    "not UTF-8": lambda i, _: (
        b'{"_id": "' + i.encode() + b'", "text": "caf\xe9"}', None, "not UTF-8 at byte",
    ),
    "long id": lambda i, _: (_line(_id=i * 600, text="t"), None, "id of "),
    "large": lambda i, _: (_line(_id=i, text="x" * LARGE_BYTES), i, "too large: 10,000,000 bytes"),
}  # fmt: skip
"""By kind; ``large`` lines are limited in number, the others make up a share each."""


def write_damaged(
    path: Path, lines: int, *, share: float = 0.01, large: int = 2, words: int = 8, seed: int = 0
) -> DamagedCorpus:
    """Write a corpus with ``share`` of every kind of damage, in an order drawn by ``seed``.

    Args:
        path: a ``.jsonl`` file.
        lines: how many.
        share: of each kind, of all lines.
        large: lines of 10 MB; at most the share.
        words: of a good document.
        seed: of the order; the first two lines are good.
    """
    each = max(1, round(lines * share))
    kinds = [
        kind for kind in DAMAGES for _ in range(min(each, large) if kind == "large" else each)
    ]
    if len(kinds) + 2 > lines:
        raise ValueError(f"{lines} lines are too few for {len(kinds)} damaged ones")
    chance = random.Random(seed)  # noqa: S311
    places = dict(zip(sorted(chance.sample(range(3, lines + 1), len(kinds))), kinds, strict=True))
    shuffled = list(places.values())
    chance.shuffle(shuffled)
    places = dict(zip(places, shuffled, strict=True))
    good: list[tuple[int, str]] = []
    rejected: list[ExpectedRejection] = []
    with path.open("wb") as stream:
        for line in range(1, lines + 1):
            if line in places:
                data, known, reason = DAMAGES[places[line]](f"d{line}", good)
                rejected.append(ExpectedRejection(line, known, reason))
            else:
                good.append((line, f"d{line}"))
                data = json.dumps(document(line, words)).encode()
            stream.write(data + b"\n")
    return DamagedCorpus(path, lines, [identifier for _, identifier in good], rejected)
