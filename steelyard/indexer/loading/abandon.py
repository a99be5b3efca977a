"""Giving up an interrupted load: what it began is dropped, the alias stays as it is."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from steelyard.encoders.pack.metadata import PackMetadata
from steelyard.indexer.generations import abort as generations
from steelyard.indexer.loading.job import PUBLISHED, hold_sink
from steelyard.indexer.loading.journal import SinkJournal
from steelyard.indexer.loading.sink import Sink


def abandon(folder: Path, pack: PackMetadata, sink: Sink) -> str | None:
    """Drop the generation that a sink's journal names, unless it is published; shards stay.

    Args:
        folder: of the shards.
        pack: whose spaces they have.
        sink: where the load went to.

    Returns:
        Name of the generation; None: there was nothing to give up.

    Raises:
        EngineError: the engine cannot be reached; nothing is forgotten then.
    """
    journal = SinkJournal(folder, sink.url, (pack.spaces.dense, pack.spaces.sparse))
    with ExitStack() as held:
        hold_sink(journal, held)
        journal.read()
        generation = journal.generation
        if generation is None or PUBLISHED in journal.steps:
            return None
        engine = sink.open()
        held.callback(engine.close)
        current = engine.resolve()
        if current is not None and current.name == generation.name:
            return None
        store = sink.records_of(engine)
        done = generations.abandon(engine, store, generation=generation.name)
        journal.forget()
        return generation.name if done.dropped else None
