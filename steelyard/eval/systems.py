"""Systems by name: ``lookup+bm25+feedback``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steelyard.encoders.pack.metadata import BM25, LM_HEAD
from steelyard.errors import InputError
from steelyard.plugin.engine import MATCH

FULL, LOOKUP, FEEDBACK = "full", "lookup", "feedback"
FEEDBACK_DOCUMENTS = 3
DENSE_SOURCES = (FULL, LOOKUP)
SPARSE_KINDS = (BM25, LM_HEAD)
DEFAULT_SYSTEMS = "full,lookup,bm25,full+bm25,lookup+bm25,lookup+bm25+feedback,full+bm25+feedback"


@dataclass(frozen=True, slots=True)
class System:
    """One way of answering a query.

    Attributes:
        name: as the user wrote it.
        dense: ``full`` (the document encoder also encodes the query), ``lookup``, or None.
        sparse: kind of the pack's sparse arm if that takes part, or None.
        feedback: how many of the best documents' vectors refine the dense query; 0 is off.
        match: whether the engine's own BM25 over the texts takes part.

    One without any arm stands for a run that was made elsewhere.
    """

    name: str
    dense: str | None
    sparse: str | None
    feedback: int = 0
    match: bool = False


def parse_systems(text: str, feedback: int = FEEDBACK_DOCUMENTS) -> list[System]:
    """Read a comma-separated list of systems.

    Args:
        text: names of parts, joined by +.
        feedback: how many documents ``feedback`` stands for.

    Raises:
        InputError: an unknown or impossible one.
    """
    names = list(filter(None, (n.strip() for n in text.split(","))))
    systems = [parse_system(name, feedback) for name in names]
    if not systems or len(set(names)) != len(names):
        raise InputError(f"no or repeated systems in {text!r}", f"for example {DEFAULT_SYSTEMS}")
    return systems


def full_name(name: str, names: Sequence[str]) -> str | None:
    """Of ``lookup+bm25``, ``full+bm25`` if that is among the names."""
    parts = name.split("+")
    full = "+".join(FULL if part == LOOKUP else part for part in parts)
    return full if LOOKUP in parts and full in names else None


def default_systems(sparse_kind: str) -> str:
    """The systems that are compared when nobody says, for a pack of this sparse kind."""
    return DEFAULT_SYSTEMS.replace(BM25, sparse_kind)


def parse_system(name: str, feedback: int = FEEDBACK_DOCUMENTS) -> System:
    """Read one system's name: see ``parse_systems``."""
    parts = name.split("+")
    unknown = set(parts) - {*DENSE_SOURCES, *SPARSE_KINDS, MATCH, FEEDBACK}
    dense = [p for p in parts if p in DENSE_SOURCES]
    sparse = [p for p in parts if p in SPARSE_KINDS]
    wanted = FEEDBACK in parts
    if (
        unknown
        or len(dense) > 1
        or len(sparse) > 1
        or len(set(parts)) != len(parts)
        or (wanted and not dense)
    ):
        raise InputError(
            f"no system {name!r}",
            "join full or lookup, the pack's sparse kind (bm25, lm-head), match (the engine's "
            "own BM25), and feedback (which needs a dense arm) with +",
        )
    return System(
        name,
        dense[0] if dense else None,
        sparse[0] if sparse else None,
        feedback if wanted else 0,
        MATCH in parts,
    )
