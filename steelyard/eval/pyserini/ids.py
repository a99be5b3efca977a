"""Ids that every tool of a Pyserini run carries unharmed."""

from __future__ import annotations

from collections.abc import Iterable

from steelyard.errors import InputError


def check_ids(ids: Iterable[str], what: str) -> None:
    """Refuse ids that run files, docid lists or the bridge to Java would change.

    Args:
        ids: of documents or queries.
        what: which, for the message.

    Raises:
        InputError: one with white space, or with characters beyond U+FFFF.
    """
    for identifier in ids:
        if len(identifier.split()) != 1 or identifier != identifier.strip():
            raise InputError(
                f"the {what} id {identifier!r} holds white space, where a TREC run file ends a "
                "field",
                "give other ids",
            )
        if max(identifier) > "\uffff":
            raise InputError(
                f"the {what} id {identifier!r} holds a character beyond U+FFFF, which Pyserini "
                "gets back from Java as two others",
                "give other ids",
            )
