"""The hash table of pieces: what a dictionary would say, for whole texts at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.encoders.query.piece_table import (
    KEY_BYTES,
    Cutter,
    Pieces,
    PieceTable,
    at_spaces,
    at_spaces_and,
)

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


def words_apart(text: str, apart: str) -> list[str]:
    for character in apart:
        text = text.replace(character, f" {character} ")
    return [piece for piece in text.split(" ") if piece]


@settings(deadline=None)
@given(text=TEXT)
def test_texts_are_cut_as_python_would(text: str) -> None:
    for cutter, wanted in (
        (at_spaces, text.split(" ")),
        (at_spaces_and("-!."), words_apart(text, "-!.")),
    ):
        pieces = Pieces.cut(text.encode(), cutter)
        assert pieces.texts(np.arange(len(pieces))) == wanted


@pytest.mark.parametrize("cutter", [at_spaces, at_spaces_and("!")])
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
        found, _, _ = table.encode(Pieces.cut(text.encode(), at_spaces), learner)
        expected = [*many, "x" * KEY_BYTES, "y" * (KEY_BYTES + 1)]
        assert found.tolist() == [one for piece in expected for one in ids(piece)]
    assert len(learner.asked) == 20_003 + 2 * 2
    assert learner.asked[20_003:] == 2 * ["y" * (KEY_BYTES + 1), "why?"]
    known = table.knows(Pieces.cut(b"w1 w1f40 zz why?", at_spaces))
    assert known.tolist() == [True, True, False, False]
    table.clear()
    assert len(table) == 0
    assert not table.knows(Pieces.cut(b"w1", at_spaces)).any()


def test_pieces_that_begin_alike_are_told_apart() -> None:
    table, learner = PieceTable(1000), Learner()
    text = " ".join("abcdefghijklmnop"[:size] for size in range(17))
    for _ in range(2):
        _, indptr, _ = table.encode(Pieces.cut(text.encode(), at_spaces), learner)
        assert np.diff(indptr).tolist() == [size % 5 for size in range(17)]
