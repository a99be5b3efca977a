"""The log of live changes, applied to a generation that lacks a part of it."""

from __future__ import annotations

from collections.abc import Callable

from steelyard.errors import EngineError
from steelyard.indexer.changes.apply import Applier
from steelyard.indexer.changes.encoder import ChangeEncoder
from steelyard.indexer.changes.log import decode_change
from steelyard.indexer.changes.writing import refusals
from steelyard.plugin.engine import Engine, Generation
from steelyard.plugin.records import RecordStore
from steelyard.progress import Progress


def replay(
    store: RecordStore,
    engine: Engine,
    generation: Generation,
    encoder: Callable[[], ChangeEncoder],
    after: int,
    progress: Progress,
    through: int | None = None,
    *,
    check: Callable[[], None] = lambda: None,
) -> int:
    """Apply the entries behind one, in order; doing it again changes nothing.

    Args:
        store: of the alias.
        engine, generation: where to; searches see all of it when this returns.
        encoder: of the generation's spaces; called only if a document is to be written.
        after: number of the last entry that the generation contains.
        progress: shows the entries done.
        through: number of the last entry to apply; None is the newest.
        check: raises when the lease was lost; called before anything is written.

    Returns:
        Number of the last entry that the generation contains now.

    Raises:
        EngineError: entries that it lacks were trimmed, or the engine failed.
    """
    newest = store.last_sequence()
    last = newest if through is None else min(through, newest)
    if last <= after:
        return after
    first = store.first_sequence()
    if first > after + 1:
        raise EngineError(
            f"{generation.name} contains the log of live changes up to entry {after}, and the log "
            f"in {store.where} begins with entry {first}",
            "index the corpus again: what is between them is gone",
        )
    applier, applied = Applier(engine, generation, encoder, check), after
    with progress.stage("replay live changes", last - after) as advance:
        for entry in store.entries(after):
            if entry.sequence > last:
                break
            applier.add(decode_change(entry))
            applied = entry.sequence
            advance(1)
        applier.flush()
        applier.writer.finish()
    if applied < last:
        raise EngineError(
            f"the log in {store.where} ends with entry {applied}, and its last is {last}",
            "run the command again",
        )
    if applier.refused:
        progress.say(f"live changes: {refusals(applier.refused)}")
    return applied
