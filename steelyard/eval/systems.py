"""Systems by name: ``lookup+bm25+feedback``."""

from __future__ import annotations

from dataclasses import dataclass

from steelyard.encoders.pack.metadata import BM25, LM_HEAD
from steelyard.errors import InputError

FEEDBACK_DOCUMENTS = 3
SPARSE_KINDS = (BM25, LM_HEAD)
DEFAULT_SYSTEMS = "full,lookup,bm25,full+bm25,lookup+bm25,lookup+bm25+feedback,full+bm25+feedback"


@dataclass(frozen=True, slots=True)
class System:
    """One way of answering a query.

    Attributes:
        name: as the user wrote it.
        dense: ``full`` (the document encoder also encodes the query), ``lookup``, or None.
        sparse: kind of the pack's sparse arm if that takes part, or None.
        feedback: whether the best documents' vectors refine the dense query.
    """

    name: str
    dense: str | None
    sparse: str | None
    feedback: bool


def parse_systems(text: str) -> list[System]:
    """Read a comma-separated list of systems.

    Raises:
        InputError: an unknown or impossible one.
    """
    systems = [_parse(name) for name in filter(None, (n.strip() for n in text.split(",")))]
    names = [system.name for system in systems]
    if not systems or len(set(names)) != len(names):
        raise InputError(f"no or repeated systems in {text!r}", f"for example {DEFAULT_SYSTEMS}")
    return systems


def default_systems(sparse_kind: str) -> str:
    """The systems that are compared when nobody says, for a pack of this sparse kind."""
    return DEFAULT_SYSTEMS.replace("bm25", sparse_kind)


def _parse(name: str) -> System:
    parts = name.split("+")
    unknown = [p for p in parts if p not in ("full", "lookup", "feedback", *SPARSE_KINDS)]
    dense = [p for p in parts if p in ("full", "lookup")]
    sparse = [p for p in parts if p in SPARSE_KINDS]
    feedback = "feedback" in parts
    if (
        unknown
        or len(dense) > 1
        or len(sparse) > 1
        or len(set(parts)) != len(parts)
        or (feedback and not dense)
    ):
        raise InputError(
            f"no system {name!r}",
            "join full or lookup, the pack's sparse kind (bm25, lm-head), and feedback (which "
            "needs a dense arm) with +",
        )
    return System(name, dense[0] if dense else None, sparse[0] if sparse else None, feedback)
