"""Ids that every tool of a Pyserini run carries unharmed."""

from __future__ import annotations

from collections.abc import Iterable

from steelyard.errors import InputError


def check_ids(ids: Iterable[str], what: str) -> None:
    """Refuse ids that run files and Pyserini's lists of ids would take apart.

    Args:
        ids: of documents or queries.
        what: which, for the message.

    Raises:
        InputError: an empty one, or one with white space.
    """
    for identifier in ids:
        if identifier.split() != [identifier]:
            raise InputError(
                f"the {what} id {identifier!r} is empty or holds white space, where a TREC run "
                "file ends a field",
                "give other ids",
            )
