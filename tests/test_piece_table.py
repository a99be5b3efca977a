"""The hash table of pieces: what a dictionary would say, for whole texts at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.encoders.query.cutters import Cutter, with_spaces, without_spaces
from steelyard.encoders.query.piece_table import KEY_BYTES, Pieces, PieceTable

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)


class Learner:
    """Ids of a piece: its characters; a piece with "?" has none of its own."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, pieces: Sequence[str]) -> list[bytes | None]:
        self.asked += pieces
        return [None if "?" in p else np.array(ids(p), dtype=np.int32).tobytes() for p in pieces]


def ids(piece: str) -> list[int]:
    return [ord(character) for character in piece][: len(piece) % 5]


CUTTERS = [without_spaces(""), without_spaces("!"), with_spaces("!"), with_spaces("", "'")]


@pytest.mark.parametrize("cutter", CUTTERS)
@settings(deadline=None)
@given(texts=st.lists(TEXT, max_size=8), limit=st.sampled_from([3, 100, 10_000]))
def test_ids_are_those_that_were_learnt(cutter: Cutter, texts: list[str], limit: int) -> None:
    table, learner = PieceTable(limit), Learner()
    for text in [*texts, *texts]:
        pieces = Pieces.cut(text.encode(), cutter)
        written = pieces.texts(np.arange(len(pieces)))
        found, indptr, refused = table.encode(pieces, learner)
        wanted = [[] if "?" in piece else ids(piece) for piece in written]
        assert found.tolist() == [one for row in wanted for one in row]
        assert np.diff(indptr).tolist() == [len(row) for row in wanted]
        assert refused.tolist() == [i for i, piece in enumerate(written) if "?" in piece]
        assert len(table) <= max(limit, len(pieces))


def test_what_is_known_is_not_asked_for_again() -> None:
    table, learner = PieceTable(100_000), Learner()
    many = [f"w{number:x}" for number in range(20_000)]
    text = " ".join([*many, "x" * KEY_BYTES, "y" * (KEY_BYTES + 1), "why?"])
    for _ in range(3):
        found, _, _ = table.encode(Pieces.cut(text.encode(), without_spaces("")), learner)
        expected = [*many, "x" * KEY_BYTES, "y" * (KEY_BYTES + 1)]
        assert found.tolist() == [one for piece in expected for one in ids(piece)]
    assert len(learner.asked) == 20_003 + 2 * 2
    assert learner.asked[20_003:] == 2 * ["y" * (KEY_BYTES + 1), "why?"]
    known = table.knows(Pieces.cut(b"w1 w1f40 zz why?", without_spaces("")))
    assert known.tolist() == [True, True, False, False]
    table.clear()
    assert len(table) == 0
    assert not table.knows(Pieces.cut(b"w1", without_spaces(""))).any()


def test_pieces_that_begin_alike_are_told_apart() -> None:
    table, learner = PieceTable(1000), Learner()
    parts = ["abcdefghijklmnop"[:size] for size in range(1, 17)] + ["\u00e9", "C\u00e9", "\u4f60"]
    written = [piece for part in parts for piece in ("!", part, "!", f" {part}")]
    for _ in range(2):
        pieces = Pieces.cut("".join(written).encode(), with_spaces("!"))
        found, _, _ = table.encode(pieces, learner)
        assert found.tolist() == [one for piece in written for one in ids(piece)]
    assert sorted(learner.asked) == sorted(set(written))
