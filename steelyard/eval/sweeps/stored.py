"""The vectors that an engine stores, in memory."""

from __future__ import annotations

from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import EngineError
from steelyard.plugin.exact import ExactIndex
from steelyard.plugin.packs import check_spaces
from steelyard.plugin.urls import open_engine
from steelyard.progress import Progress


def stored_vectors(queries: QueryEncoder, url: str, progress: Progress) -> ExactIndex:
    """A copy of the generation that the alias stands for; the engine is closed again.

    Args:
        queries: the pack, which must be of the index's spaces.
        url: of the engine.
        progress: shows the stage.

    Raises:
        EngineError: no such index.
        PackMismatchError: the pack is of another space.
    """
    engine = open_engine(url, must_exist=True, vocabulary=queries.tokenizer)
    try:
        generation = engine.resolve()
        if generation is None:
            raise EngineError(f"no index {engine.alias!r} in {url}", "run 'steelyard index' first")
        check_spaces(queries.metadata.spaces, generation)
        with progress.stage("read the stored vectors"):
            return ExactIndex(generation, engine.open(generation).export())
    finally:
        engine.close()
