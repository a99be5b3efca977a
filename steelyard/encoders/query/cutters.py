"""Where the pieces of a text begin and end, for all bytes of many texts at once.

A piece is what stands between two spaces, or less: the more often a cut falls where the tokenizer
cuts too, whatever stands around it, the fewer different pieces there are. "cells", "cells." and
"(cells" are then two pieces and three signs, not three pieces of which each is learnt anew.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

SPACE = 0x20

Cutter: TypeAlias = Callable[[bytes], tuple[NDArray[np.int64], NDArray[np.int64]]]
"""UTF-8 of a text to int64 ``[n]``, where its pieces start, and where they end."""

_GAP, _ALONE, _LETTER, _DIGIT, _SIGN, _JOINED = (1 << bit for bit in range(6))
"""Kinds of characters, bits; the first is a space."""


def without_spaces(apart: str) -> Cutter:
    """Cuts at spaces, which belong to no piece, and before and after each of some characters.

    Args:
        apart: those characters, ASCII.
    """
    cut_off = f" {apart}".encode("ascii")
    in_words = bytes(byte not in cut_off for byte in range(256))

    def cut(data: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        in_word = np.frombuffer(data.translate(in_words), dtype=np.bool_)
        there = np.frombuffer(data, dtype=np.uint8) != SPACE
        inside = np.zeros(len(data) + 1, dtype=np.bool_)  # whether a word goes on here
        np.logical_and(in_word[1:], in_word[:-1], out=inside[1:-1])
        return np.flatnonzero(there > inside[:-1]), np.flatnonzero(there > inside[1:]) + 1

    return cut


def with_spaces(
    apart: str, joined: str | None = None, *, signs_lead: bool = False, runs: bool = False
) -> Cutter:
    """Cuts before spaces, each the first character of a piece, and perhaps between kinds.

    Args:
        apart: ASCII characters that are pieces of their own.
        joined: None: no cut between kinds. Else a cut where one kind, of letters, digits and
            signs, follows another, but not beside one of these ASCII digits and signs, as not
            beside what is not ASCII.
        signs_lead: no cut between a sign and the letter behind it.
        runs: no cut between two spaces.
    """
    kinds = _kinds(apart, joined)
    always = _GAP | _ALONE
    behind = {
        _GAP: _ALONE if runs else always,
        _ALONE: always | _LETTER | _DIGIT | _SIGN | _JOINED,
        _LETTER: always | _DIGIT | _SIGN,
        _DIGIT: always | _LETTER | _SIGN,
        _SIGN: always | _DIGIT | (0 if signs_lead else _LETTER),
        _JOINED: always,
    }
    cut_behind = bytes(behind[kind] for kind in kinds)

    def cut(data: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        may_follow = np.frombuffer(data.translate(cut_behind), dtype=np.uint8)
        kind = np.frombuffer(data.translate(kinds), dtype=np.uint8)
        starts = np.ones(len(data), dtype=np.bool_)
        np.not_equal(may_follow[:-1] & kind[1:], 0, out=starts[1:])
        begins = np.flatnonzero(starts)
        return begins, np.append(begins[1:], len(data)) if len(data) else begins

    return cut


def _kinds(apart: str, joined: str | None) -> bytes:
    """The kind of each of the 256 bytes."""
    kinds = bytearray([_JOINED] * 256)
    if joined is not None:
        for characters, kind in (
            (string.ascii_letters, _LETTER),
            (string.digits, _DIGIT),
            (string.punctuation, _SIGN),
        ):
            for byte in set(characters.encode("ascii")) - set(joined.encode("ascii")):
                kinds[byte] = kind
    for byte in apart.encode("ascii"):
        kinds[byte] = _ALONE
    kinds[SPACE] = _GAP
    return bytes(kinds)
