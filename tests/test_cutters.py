"""Where pieces begin and end: byte by byte what a walk over the characters says."""

from __future__ import annotations

import re
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.encoders.query.cutters import Cutter, with_spaces, without_spaces
from steelyard.encoders.query.piece_table import Pieces

CHARACTERS = st.one_of(
    st.sampled_from(" ab19.'(-\1\u00e9\u0301"),
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]),
)
TEXT = st.text(CHARACTERS, max_size=60)


def cut(text: str, cutter: Cutter) -> list[str]:
    pieces = Pieces.cut(text.encode(), cutter)
    return pieces.texts(np.arange(len(pieces)))


def kind(character: str, joined: str) -> str:
    if character in " \1":
        return character
    for characters, name in (
        (string.ascii_letters, "letter"),
        (string.digits, "digit"),
        (joined, "joined"),
        (string.punctuation, "sign"),
    ):
        if character in characters:
            return name
    return "joined"


def by_kinds(text: str, joined: str, *, signs_lead: bool) -> list[str]:
    pieces: list[str] = []
    before = "\1"
    for character in text:
        now = kind(character, joined)
        apart = "\1" in (before, now)
        gap = now == " " and before != " "
        other = now != before and not {now, before} & {" ", "joined"}
        led = signs_lead and (before, now) == ("sign", "letter")
        if apart or gap or (other and not led):
            pieces.append(character)
        else:
            pieces[-1] += character
        before = now
    return pieces


@settings(deadline=None)
@given(text=TEXT)
def test_spaces_belong_to_no_piece_or_to_the_one_behind(text: str) -> None:
    for character in "-!.":
        text = text.replace(character, f" {character} ")
    assert cut(text, without_spaces("-!.")) == [piece for piece in text.split(" ") if piece]
    assert cut(text, with_spaces("")) == re.findall("(?s) [^ ]*|[^ ]+", text)
    assert cut(text, with_spaces("", runs=True)) == re.findall("(?s) +[^ ]*|[^ ]+", text)


@pytest.mark.parametrize("signs_lead", [False, True])
@settings(deadline=None)
@given(text=TEXT)
def test_a_cut_is_where_one_kind_follows_another(signs_lead: bool, text: str) -> None:
    cutter = with_spaces("\1", "'-", signs_lead=signs_lead, runs=True)
    assert cut(text, cutter) == by_kinds(text, "'-", signs_lead=signs_lead)


def test_an_example() -> None:
    cutter = with_spaces("\1", "'", runs=True)
    text = "\1the  cells' (IL-2) don't.\1 p53"
    wanted = ["\1", "the", "  cells'", " (", "IL", "-", "2", ")", " don't", ".", "\1", " p", "53"]
    assert cut(text, cutter) == wanted
