"""Hits grouped by the document that they are passages of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from steelyard.errors import EngineError
from steelyard.plugin.engine import StoredDocument
from steelyard.plugin.ranking import Method, Plan
from steelyard.plugin.search.calls import Fetch

PARENTS = "parents"


def best_passages(
    ids: Sequence[str], count: int, method: Method, missing: dict[str, EngineError]
) -> Plan[tuple[list[str], Mapping[str, StoredDocument]]]:
    """The first passage of each of the first ``count`` parents in a ranking.

    Documents are read in ever larger steps until there are so many parents, or no candidates. One
    that is not stored any more is no passage of any.

    Args:
        ids: of all candidates, best first.
        count: of parents.
        method: whether to go on without documents.
        missing: is told when it does: then the ranking stays as it is.

    Returns:
        Ids, best first, and the documents that were read.

    Raises:
        EngineError: documents cannot be read.
    """
    best: dict[str, str] = {}
    read: dict[str, StoredDocument] = {}
    first, step = 0, 2 * count
    while first < len(ids) and len(best) < count:
        window = ids[first : first + step]
        (stored,) = yield [Fetch(window)]
        if isinstance(stored, EngineError):
            if not method.degrade:
                raise stored
            missing[PARENTS] = stored
            return list(ids), {}
        for identifier in window:
            found = stored.get(identifier)
            if found is not None:
                best.setdefault(found.document.parent_id or identifier, identifier)
        read.update(stored)
        first, step = first + step, 2 * step
    return list(best.values())[:count], read
