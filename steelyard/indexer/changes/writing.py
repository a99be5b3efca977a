"""Whole documents written to and removed from one generation.

Of a generation whose documents are split, a document that is replaced is first looked up by its
parent; its new passages are written, and then those of the old ones go that no new one has
replaced. Deleting first and inserting then has the same end, but between the two a search would
not find the document at all; this way it finds the new passages, and for a moment some of the
old beside them. Interrupted, it is done again from the log, with the same end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from steelyard.errors import EngineError
from steelyard.indexer.changes.encoder import EncodedChange, document_of
from steelyard.plugin.abilities import FindsIds, make_searchable
from steelyard.plugin.engine import Engine, Generation, SearchIndex
from steelyard.plugin.filters import Filter

_IDS = 5000
"""Deleted at once, between two looks at the lease."""


class Writer:
    """Writes to one generation.

    Args:
        engine: that holds it.
        generation: which.
        check: called before anything is written; raises when the lease was lost.
    """

    def __init__(
        self, engine: Engine, generation: Generation, check: Callable[[], None] = lambda: None
    ) -> None:
        self._engine, self.generation, self._check = engine, generation, check
        self._index: SearchIndex | None = None
        # A writer that died may have left something that searches do not see yet.
        self._unseen = True

    @property
    def index(self) -> SearchIndex:
        """The generation, open for reading what was written so far."""
        if self._unseen:
            self.finish()
        if self._index is None:
            self._index = self._engine.open(self.generation)
        return self._index

    def put(self, ids: Sequence[str], change: EncodedChange) -> dict[str, str]:
        """Write documents in place of what there is of them.

        Args:
            ids: of the whole documents.
            change: them, encoded.

        Returns:
            Reason by id of the documents that are not written. Their older versions stay; of one
            of which the engine refuses a passage, nothing does: it would be of two versions.
        """
        refused = dict(change.refused)
        written = [identifier for identifier in ids if identifier not in refused]
        new = {document.id: document.parent_id for document in change.content.documents}
        older = self.passages(written)
        if new:
            self._check()
            self._unseen = True
            report = self._engine.upsert(self.generation, change.content, report_refused=True)
            for one in report.refused:
                refused[document_of(one.id) if one.id != new[one.id] else one.id] = one.reason
        divided = {document_of(i) for i in new if document_of(i) in refused and i not in refused}
        self._delete(
            [i for i in older if i not in new and document_of(i) not in refused]
            + [i for i in {*older, *new} if document_of(i) in divided]
        )
        return refused

    def remove(self, ids: Sequence[str]) -> None:
        """Remove whole documents by id, with their passages; unknown ids are no error."""
        self._delete(list(dict.fromkeys([*ids, *self.passages(ids)])))

    def remove_found(
        self, *, parents: Sequence[str] | None = None, filter: Filter | None = None
    ) -> list[str]:
        """Remove what is found by parent or filter; the ids that went."""
        found = self.find(parents=parents, filter=filter)
        self._delete(found)
        return found

    def passages(self, ids: Sequence[str]) -> list[str]:
        """Ids of what there is of whole documents that may have been split."""
        if not self.generation.passages or not ids:
            return []
        wanted = set(ids)
        # Documents of a corpus may say that they belong to another: those stay.
        found = self.find(parents=ids)
        return [each for each in found if document_of(each) in wanted]

    def find(
        self, *, parents: Sequence[str] | None = None, filter: Filter | None = None
    ) -> list[str]:
        """Ids by parent and filter, of everything written so far.

        Raises:
            EngineError: the engine cannot.
        """
        index = self.index
        if not isinstance(index, FindsIds):
            raise EngineError(
                f"the engine of {self.generation.name} cannot find documents by parent or filter",
                "delete by id",
            )
        return index.find(parents=parents, filter=filter)

    def finish(self) -> None:
        """Searches see everything when this returns."""
        make_searchable(self._engine, self.generation)
        self._unseen = False

    def _delete(self, ids: Sequence[str]) -> None:
        for first in range(0, len(ids), _IDS):
            self._check()
            self._unseen = True
            self._engine.delete(self.generation, ids[first : first + _IDS])


def refusals(refused: Mapping[str, str]) -> str:
    """Some of the documents that were refused, for a line."""
    shown = "; ".join(
        f"{identifier!r:.80}: {why}" for identifier, why in list(refused.items())[:3]
    )
    return f"{len(refused)} refused: {shown}"
